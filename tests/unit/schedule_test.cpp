// The schedule of replications: turns of users, rests, and what ends a rest early.
#include <gmock/gmock.h>

#include "engine/replication/schedule.h"

namespace rekeyfs::replication {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Cause = Schedule::Failure::Cause;

LayerId job(std::uint64_t number) { return LayerId{number}; }

class ScheduleTest : public ::testing::Test {
 protected:
  void add(uid_t user, std::initializer_list<std::uint64_t> jobs) {
    for (const std::uint64_t number : jobs) schedule_.add(job(number), user);
  }
  std::vector<std::uint64_t> active() {
    std::vector<std::uint64_t> numbers;
    for (const LayerId one : schedule_.active(now_)) numbers.push_back(one.value());
    return numbers;
  }
  void fail_with(std::uint64_t number, Cause cause, std::uint64_t needed = 0, std::uint64_t free = 0) {
    schedule_.failed(job(number), {cause, needed, free}, now_);
  }
  // How long the job rests.
  std::chrono::seconds rest() { return std::chrono::duration_cast<std::chrono::seconds>(schedule_.next_end().value() - now_); }

  Schedule schedule_;
  Schedule::Clock::time_point now_{};
};

TEST_F(ScheduleTest, AFewAreActiveTheOldestFirst) {
  add(7, {5, 3, 9, 1, 8, 2});
  EXPECT_THAT(active(), ElementsAre(1, 2, 3, 5));
  schedule_.remove(job(2));
  EXPECT_THAT(active(), ElementsAre(1, 3, 5, 8));
}

TEST_F(ScheduleTest, NothingIsActiveWhereThereIsNothing) {
  EXPECT_THAT(active(), IsEmpty());
  schedule_.remove(job(1));
  schedule_.pause(job(1));
  fail_with(1, Cause::other);
  EXPECT_FALSE(schedule_.next_end());
}

TEST_F(ScheduleTest, EachUserHasAPlace) {
  add(7, {1, 2, 3, 4, 5});
  add(8, {100});
  EXPECT_THAT(active(), UnorderedElementsAre(1, 2, 3, 100));
  add(9, {101, 102, 103});
  EXPECT_THAT(active(), UnorderedElementsAre(1, 2, 100, 101));
}

TEST_F(ScheduleTest, WhereThereAreMoreUsersThanPlacesTheOldestJobsHaveThem) {
  for (uid_t user = 0; user < 6; ++user) add(user, {10 - user, 20 - user});
  EXPECT_THAT(active(), UnorderedElementsAre(5, 6, 7, 8));
}

TEST_F(ScheduleTest, UsersTakeTurns) {
  add(7, {1, 2});
  add(8, {3});
  add(9, {4});
  schedule_.served(job(1));
  EXPECT_THAT(active(), ElementsAre(3, 4, 1, 2));
  schedule_.served(job(3));
  EXPECT_THAT(active(), ElementsAre(4, 1, 2, 3));
  schedule_.served(job(4));
  EXPECT_THAT(active(), ElementsAre(1, 2, 3, 4));
}

TEST_F(ScheduleTest, AJobThatFailsGivesItsPlaceToAnother) {
  add(7, {1, 2, 3, 4, 5});
  for (const std::uint64_t number : {1, 2, 3}) fail_with(number, Cause::other);
  EXPECT_THAT(active(), ElementsAre(4, 5));
  now_ += 1s;
  EXPECT_THAT(active(), ElementsAre(1, 2, 3, 4));
}

TEST_F(ScheduleTest, AUserWhoseJobsFailHoldsUpNobody) {
  for (std::uint64_t number = 0; number < 1000; ++number) {
    add(7, {number});
    fail_with(number, Cause::other);
  }
  add(8, {5000, 5001});
  EXPECT_THAT(active(), ElementsAre(5000, 5001));
  now_ += 1s;
  EXPECT_THAT(active(), ElementsAre(0, 1, 5000, 5001));
}

TEST_F(ScheduleTest, RestsBecomeLongerUntilAJobGoesOn) {
  add(7, {1});
  for (const auto expected : {1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 256s}) {
    fail_with(1, Cause::other);
    fail_with(1, Cause::other);  // two workers were at it
    EXPECT_EQ(rest(), expected);
    EXPECT_THAT(active(), IsEmpty());
    now_ += expected;
    EXPECT_THAT(active(), ElementsAre(1));
  }
  schedule_.succeeded(job(1));
  fail_with(1, Cause::other);
  EXPECT_EQ(rest(), 1s);
}

TEST_F(ScheduleTest, AKeyThatIsEnabledEndsTheRestsForIt) {
  add(7, {1, 2, 3});
  fail_with(1, Cause::other);
  fail_with(2, Cause::key);
  fail_with(3, Cause::space, 10, 0);
  schedule_.key_enabled();
  EXPECT_THAT(active(), ElementsAre(2));
  fail_with(2, Cause::key);
  EXPECT_EQ(schedule_.next_end().value() - now_, 1s) << "of another";
  schedule_.remove(job(1));
  schedule_.remove(job(3));
  EXPECT_EQ(rest(), 2s) << "it failed again";
}

TEST_F(ScheduleTest, SpaceEndsTheRestsOfThoseThatItIsEnoughFor) {
  add(7, {1, 2, 3, 4});
  fail_with(1, Cause::space, 100, 50);
  fail_with(2, Cause::space, 30, 50);  // there seemed to be enough
  fail_with(3, Cause::space, 70, 50);
  fail_with(4, Cause::other);
  EXPECT_TRUE(schedule_.waits_for_space());
  schedule_.space_is(50);
  EXPECT_THAT(active(), IsEmpty());
  schedule_.space_is(80);
  EXPECT_THAT(active(), ElementsAre(2, 3));
  EXPECT_TRUE(schedule_.waits_for_space());
  schedule_.space_is(100);
  EXPECT_THAT(active(), ElementsAre(1, 2, 3));
  EXPECT_FALSE(schedule_.waits_for_space());
}

TEST_F(ScheduleTest, APausedJobHasNoPlaceUntilItIsResumed) {
  add(7, {1, 2});
  schedule_.pause(job(1));
  EXPECT_THAT(active(), ElementsAre(2));
  EXPECT_FALSE(schedule_.next_end());
  now_ += 1h;
  EXPECT_THAT(active(), ElementsAre(2));
  schedule_.resume(job(1));
  EXPECT_THAT(active(), ElementsAre(1, 2));
  fail_with(2, Cause::space);
  schedule_.resume(job(2));
  EXPECT_THAT(active(), ElementsAre(1)) << "it rests";
  schedule_.pause(job(2));
  EXPECT_FALSE(schedule_.waits_for_space());
}

TEST_F(ScheduleTest, AJobInPlaceOfAnotherOfItsNumberStartsAnew) {
  add(7, {1});
  fail_with(1, Cause::space);
  add(8, {1});
  EXPECT_THAT(active(), ElementsAre(1));
  EXPECT_FALSE(schedule_.waits_for_space());
  schedule_.remove(job(1));
  EXPECT_THAT(active(), IsEmpty());
}

// A worker looks whenever it is done with a piece.
TEST_F(ScheduleTest, ThousandsThatRestCostNothing) {
  for (std::uint64_t number = 0; number < 4000; ++number) {
    add(static_cast<uid_t>(number % 50), {number});
    fail_with(number, number % 2 == 0 ? Cause::space : Cause::key, 100, 50);
  }
  add(7, {9000});
  const auto begun = std::chrono::steady_clock::now();
  for (int look = 0; look < 100'000; ++look) {
    ASSERT_EQ(schedule_.active(now_).size(), 1u);
    schedule_.served(job(9000));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 2s) << "20 us a look, on any machine";
}

}  // namespace
}  // namespace rekeyfs::replication
