// Refusals counted together.
#include <gmock/gmock.h>

#include "engine/images/refusal_windows.h"

namespace rekeyfs::images {
namespace {

using namespace std::chrono_literals;
using ::testing::IsEmpty;

class RefusalWindowsTest : public ::testing::Test {
 protected:
  static Event refusal(const std::string& path, uid_t uid, Timestamp time = 1) {
    Event event;
    event.kind = EventKind::refused;
    event.path = path;
    event.text = "the rule";
    event.uid = uid;
    event.time = time;
    return event;
  }
  bool is_new(const std::string& path, uid_t uid, Timestamp time = 1) { return windows_.is_new(refusal(path, uid, time), now_); }
  std::vector<Event> end() { return windows_.end(now_); }

  RefusalWindows windows_;
  RefusalWindows::Clock::time_point now_{1h};
};

TEST_F(RefusalWindowsTest, RepeatsAreOneEventWhenTheWindowEnds) {
  EXPECT_TRUE(is_new("/a", 1, 10));
  EXPECT_FALSE(is_new("/a", 1, 11));
  EXPECT_FALSE(is_new("/a", 1, 12));
  EXPECT_TRUE(is_new("/b", 1, 13));
  EXPECT_TRUE(is_new("/a", 2, 14));
  now_ += RefusalWindows::kLength - 1s;
  EXPECT_THAT(end(), IsEmpty());
  EXPECT_FALSE(is_new("/a", 1, 15));
  now_ += 1s;
  const std::vector<Event> counted = end();
  ASSERT_EQ(counted.size(), 1U);
  EXPECT_EQ(counted[0].count, 3U);
  EXPECT_EQ(counted[0].since, 11);
  EXPECT_EQ(counted[0].time, 15);
  EXPECT_EQ(counted[0].path, "/a");
  EXPECT_EQ(windows_.next_end(), std::nullopt);
  EXPECT_TRUE(is_new("/a", 1)) << "a new window";
}

TEST_F(RefusalWindowsTest, AWalkOverManyPathsCostsAFewEvents) {
  std::size_t written = 0;
  for (int i = 0; i < 10'000; ++i) written += is_new("/" + std::to_string(i), 1, i) ? 1 : 0;
  EXPECT_EQ(written, RefusalWindows::kDistinct);
  EXPECT_TRUE(is_new("/x", 2)) << "another user is not concerned";
  const std::vector<Event> counted = windows_.end_all();
  ASSERT_EQ(counted.size(), 1U);
  EXPECT_EQ(counted[0].count, 10'000 - written);
  EXPECT_EQ(counted[0].uid, 1U);
  EXPECT_EQ(counted[0].path, "/9999");
}

TEST_F(RefusalWindowsTest, ManyUsersCostABoundedNumber) {
  std::size_t written = 0;
  for (uid_t uid = 0; uid < 5000; ++uid) written += is_new("/a", uid) ? 1 : 0;
  EXPECT_EQ(written, RefusalWindows::kUsers);
  const std::vector<Event> counted = windows_.end_all();
  ASSERT_EQ(counted.size(), 1U);
  EXPECT_EQ(counted[0].uid, kSeveralUsers);
  EXPECT_EQ(counted[0].count, 5000 - written);
}

}  // namespace
}  // namespace rekeyfs::images
