// kill -9 at every point at which a store is changed: each write, sync, punch and removal of each kind of file,
// including LMDB's.
//
// A child process runs a small workload, reports each acknowledged call, and kills itself at one of the points. The
// store is then opened within five seconds. All acknowledged changes must be there, and the interrupted call must have
// happened completely or not at all. The rest of the workload must succeed, replications and rotations must complete,
// and a check must find no problem.
//
// REKEYFS_TEST_KILLS=0 kills at every point, before, during and after the call; another number kills at that many
// points of each workload. REKEYFS_TEST_KILL_ROUNDS repeats this with other content; REKEYFS_TEST_SEED repeats a run.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/support/environment.h"
#include "tests/support/kill_points.h"
#include "tests/support/kill_workloads.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

namespace stdfs = std::filesystem;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using test::Moment;
using test::Step;
using test::Steps;
using test::StoreState;
using test::StoreUser;
using test::Workload;

// The child process: from the opened store on, or with the opening.
[[noreturn]] void work(const std::string& store, const Workload& workload, const Steps& steps, std::uint64_t number, Moment moment, int report) {
  auto tell = [&](const std::string& text) {
    if (::write(report, text.data(), text.size()) < 0) _exit(2);
  };
  auto must = [&](const Status& status) {
    if (status) return;
    tell("failed: " + test::error_text(status.error()) + "\n");
    _exit(1);
  };
  if (workload.killed_before) test::arm_kill_point(store, number, moment, report);
  auto user = StoreUser::open(store);
  must(user ? Status{} : fail(user.error()));
  if (!workload.killed_before) test::arm_kill_point(store, number, moment, report);
  for (const Step& step : steps) {
    must(step(**user));
    tell("acknowledged\n");
  }
  must((*user)->close());
  tell(std::to_string(test::kill_points_passed()) + "\n");
  _exit(0);
}

struct ChildRun {
  std::size_t acknowledged = 0;  // steps
  std::string point;             // where it died; else how many points there were
  bool killed = false;
};

class KillTest : public test::TempDirectory, public testing::WithParamInterface<Workload> {
 protected:
  // The store before the workload, and what it is like after each of its steps.
  void prepare(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    Steps before = test::folders();
    steps_.clear();
    GetParam().plan(random, before, steps_);
    stdfs::remove_all(path("before"));
    ASSERT_TRUE(Engine::initialize(path("before"), test::test_credential()));
    Workload setup = GetParam();
    setup.killed_before = false;
    const ChildRun run = run_child("before", setup, before, GetParam().killed_before ? kAtLastPoint : 0, Moment::after);
    ASSERT_EQ(run.acknowledged, before.size()) << run.point;
    copy_before("reference");
    auto user = StoreUser::open(path("reference"));
    ASSERT_TRUE(user) << test::error_text(user);
    states_ = {*(*user)->look()};
    for (const Step& step : steps_) {
      const Status status = step(**user);
      ASSERT_TRUE(status) << states_.size() << ": " << test::error_text(status.error());
      states_.push_back(*(*user)->look());
    }
    ASSERT_TRUE((*user)->close());
    user->reset();  // the store is free
    images_at_end_ = check("reference").images;
  }

  // At one point after the other, or at some.
  void kill_at_points(std::uint64_t kills, std::mt19937_64& random) {
    copy_before("store");
    const ChildRun none = run_child("store", GetParam(), steps_, 0, Moment::before);
    ASSERT_EQ(none.acknowledged, steps_.size()) << none.point;
    const std::uint64_t points = std::stoull(none.point);
    for (std::uint64_t i = 0; i < kills && !HasFatalFailure(); ++i)
      kill_at(1 + (i * points + random() % points) / kills % points, static_cast<Moment>(random() % 3));
    bool more = kills == 0;
    for (std::uint64_t number = 1; more && !HasFailure(); ++number) {
      more = kill_at(number, Moment::before) && kill_at(number, Moment::after);
      if (more && last_point_.ends_with("write")) kill_at(number, Moment::halfway);
    }
  }

  // False if there is no such point.
  bool kill_at(std::uint64_t number, Moment moment) {
    copy_before("store");
    const ChildRun run = run_child("store", GetParam(), steps_, number, moment);
    if (!run.killed) {
      EXPECT_EQ(run.acknowledged, steps_.size()) << run.point;
      return false;
    }
    static const char* const kMoments[] = {"before", "halfway", "after"};
    SCOPED_TRACE(std::string("killed ") + kMoments[static_cast<int>(moment)] + " point " + std::to_string(number) + ", " + run.point +
                 ", with " + std::to_string(run.acknowledged) + " of " + std::to_string(steps_.size()) + " steps acknowledged");
    last_point_ = run.point;
    ++kills_[run.point];
    verify(run.acknowledged);
    return true;
  }

  void verify(std::size_t acknowledged) {
    const auto begun = Clock::now();
    auto user = StoreUser::open(path("store"));
    ASSERT_TRUE(user) << test::error_text(user);
    const auto took = Clock::now() - begun;
    EXPECT_LE(took, 5s);
    longest_ = std::max<Clock::duration>(longest_, took);
    const auto found = (*user)->look();
    ASSERT_TRUE(found) << test::error_text(found);
    const StoreState& old = states_[acknowledged];
    const StoreState& next = states_[std::min(acknowledged + 1, steps_.size())];
    ASSERT_TRUE(found->is_between(old, next)) << "there is / was acknowledged:" << test::difference(*found, old);
    go_on(**user, acknowledged < steps_.size() && *found == next && *found != old ? acknowledged + 1 : acknowledged);
    ASSERT_TRUE((*user)->close());
    user->reset();  // the store is free
    EXPECT_EQ(check("store").images, images_at_end_) << "with those that have no name any more";
  }
  // Finds nothing wrong.
  CheckReport check(const std::string& store) {
    test::FoundText found;
    const auto report = Engine::check(path(store), test::test_credential(), {.read_data = true, .repair = false, .anchor = ""}, found);
    EXPECT_TRUE(report && report->complete && report->problems.empty()) << (report ? found.text : test::error_text(report));
    return report.value_or(CheckReport{});
  }
  // The rest of the workload can be done, and all ends as if nothing had happened.
  void go_on(StoreUser& user, std::size_t done) {
    for (; done < steps_.size(); ++done) {
      const Status status = steps_[done](user);
      ASSERT_TRUE(status) << "step " << done << ": " << test::error_text(status.error());
    }
    const Status settled = user.settle();
    ASSERT_TRUE(settled) << test::error_text(settled.error());
    const auto found = user.look();
    ASSERT_TRUE(found) << test::error_text(found);
    EXPECT_EQ(test::difference(*found, states_.back()), "") << "at the end";
  }

  void report() {
    std::size_t total = 0;
    std::string text;
    for (const auto& [point, kills] : kills_) {
      total += kills;
      text += "\n  " + point + ": " + std::to_string(kills);
    }
    std::printf("%s: %zu kills, the longest opening %.3f s%s\n", GetParam().name, total, std::chrono::duration<double>(longest_).count(), text.c_str());
    EXPECT_GT(total, 0u);
  }

 private:
  static constexpr std::uint64_t kAtLastPoint = ~std::uint64_t{0};  // all steps are done, nothing is closed

  void copy_before(const std::string& name) {
    stdfs::remove_all(path(name));
    stdfs::create_directory(path(name));
    std::ofstream(path(name) + "/reserve").close();  // the space in it need not be copied
    stdfs::copy(path("before"), path(name), stdfs::copy_options::recursive | stdfs::copy_options::skip_existing);
  }

  ChildRun run_child(const std::string& name, const Workload& workload, const Steps& steps, std::uint64_t number, Moment moment) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const bool leave = number == kAtLastPoint;
    Steps planned = steps;
    if (leave) planned.push_back([](StoreUser&) -> Status { _exit(0); });
    const pid_t child = ::fork();
    if (child == 0) work(stdfs::canonical(path(name)), workload, planned, leave ? 0 : number, moment, ends[1]);
    ::close(ends[1]);
    std::string told(1 << 16, '\0');
    std::size_t size = 0;
    for (ssize_t n; (n = ::read(ends[0], told.data() + size, told.size() - size)) > 0;) size += static_cast<std::size_t>(n);
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return run_of(told.substr(0, size), status);
  }
  static ChildRun run_of(const std::string& told, int status) {
    ChildRun run;
    run.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(run.killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << told;
    std::istringstream lines(told);
    for (std::string line; std::getline(lines, line);) {
      if (line == "acknowledged") ++run.acknowledged;
      else run.point = line;
    }
    return run;
  }

  Steps steps_;
  std::vector<StoreState> states_;  // before the first step, and after each
  std::uint64_t images_at_end_ = 0;
  std::map<std::string, std::size_t> kills_;  // by the point's name
  std::string last_point_;
  Clock::duration longest_{};
};

TEST_P(KillTest, LeavesWhatWasAcknowledged) {
  const std::uint64_t seed = test::number_from_environment("REKEYFS_TEST_SEED", std::random_device{}());
  const std::uint64_t rounds = test::number_from_environment("REKEYFS_TEST_KILL_ROUNDS", 1);
  const std::uint64_t kills = test::number_from_environment("REKEYFS_TEST_KILLS", 6);
  std::printf("REKEYFS_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  SCOPED_TRACE("REKEYFS_TEST_SEED=" + std::to_string(seed));
  for (std::uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    std::mt19937_64 random(seed + round);
    prepare(seed + round);
    if (!HasFailure()) kill_at_points(kills, random);
  }
  report();
}

INSTANTIATE_TEST_SUITE_P(Workloads, KillTest, testing::ValuesIn(test::kWorkloads),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace rekeyfs
