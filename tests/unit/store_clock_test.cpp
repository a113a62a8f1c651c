// The time that a store sees: it follows the slower of two clocks, lasts, and never leads. And the text of delays.
#include <gtest/gtest.h>

#include "engine/base/delay.h"
#include "engine/store/store.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::store {
namespace {

constexpr Timestamp kSecond = 1'000'000'000;

class StoreClockTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    open();
  }
  void open(const std::string& name = "store") {
    auto opened = Store::open(path(name), test::test_credential(), false, nullptr, [this] { return reading_; });
    ASSERT_TRUE(opened) << test::error_text(opened);
    store_ = std::move(*opened);
  }
  void close() {
    ASSERT_TRUE(store_->close());
    store_.reset();
  }
  StoreClock& clock() { return store_->clock(); }

  StoreClock::Reading reading_{1'000'000 * kSecond, 50 * kSecond};
  std::unique_ptr<Store> store_;
};

TEST_F(StoreClockTest, FollowsTheSlowerClock) {
  EXPECT_EQ(clock().store_time(), 0);
  reading_.wall += 5 * kSecond;
  EXPECT_EQ(clock().store_time(), 0) << "the machine has not run so long";
  reading_.boot += 5 * kSecond;
  EXPECT_EQ(clock().store_time(), 0) << "nor did the wall clock move";
  reading_.wall += 7 * kSecond;
  reading_.boot += 6 * kSecond;
  EXPECT_EQ(clock().store_time(), 6 * kSecond);
  reading_.wall -= 3 * kSecond;
  reading_.boot += 2 * kSecond;
  EXPECT_EQ(clock().store_time(), 6 * kSecond) << "it never goes back";
  EXPECT_FALSE(clock().take_jump()) << "such corrections are no jumps";
}

TEST_F(StoreClockTest, NoticesJumpsOnce) {
  reading_.boot += kSecond;
  reading_.wall += kDay;
  const auto forward = clock().take_jump();
  ASSERT_TRUE(forward);
  EXPECT_EQ(forward->found - forward->expected, kDay - kSecond);
  EXPECT_FALSE(clock().take_jump());
  reading_.wall -= 2 * kDay;
  EXPECT_EQ(clock().store_time(), kSecond);
  const auto back = clock().take_jump();
  ASSERT_TRUE(back) << "although somebody asked for the time before";
  EXPECT_EQ(back->found - back->expected, -2 * kDay);
}

TEST_F(StoreClockTest, LastsAndCountsOnlyWhileTheStoreIsOpen) {
  reading_.wall += 100 * kSecond;
  reading_.boot += 100 * kSecond;
  close();
  reading_ = {reading_.wall + kDay, 7};  // the machine was started again
  open();
  EXPECT_EQ(clock().store_time(), 100 * kSecond);
  EXPECT_EQ(clock().gap(), kDay);
  EXPECT_FALSE(clock().take_jump());
  close();
  reading_.wall -= 2 * kDay;
  open();
  EXPECT_EQ(clock().store_time(), 100 * kSecond);
  const auto back = clock().take_jump();
  ASSERT_TRUE(back);
  EXPECT_EQ(back->found - back->expected, -2 * kDay);
  close();
  open();
  EXPECT_FALSE(clock().take_jump()) << "what was told is not told again";
}

TEST_F(StoreClockTest, NeverLeadsAfterAKill) {
  reading_.wall += 10 * kSecond;
  reading_.boot += 10 * kSecond;
  ASSERT_TRUE(clock().save());
  reading_.wall += 5 * kSecond;
  reading_.boot += 5 * kSecond;
  EXPECT_EQ(clock().store_time(), 15 * kSecond);
  test::copy_as_killed(path("store"), path("killed"));
  close();
  open("killed");
  EXPECT_EQ(clock().store_time(), 10 * kSecond);
}

TEST(DelayTest, IsANumberWithAUnit) {
  EXPECT_EQ(delay_from("7d"), 7 * kDay);
  EXPECT_EQ(delay_from("0s"), 0);
  EXPECT_EQ(delay_from("90m"), 5400 * kSecond);
  EXPECT_EQ(delay_from("366d"), 366 * kDay);
  for (const char* bad : {"", "7", "d", "-1d", "7w", "7dd", " 7d", "7 d", "367d", "99999999999999999999s", "9223372036854775807d"})
    EXPECT_FALSE(delay_from(bad)) << bad;
  EXPECT_EQ(delay_text(7 * kDay), "7d");
  EXPECT_EQ(delay_text(36 * 3600 * kSecond), "36h");
  EXPECT_EQ(delay_text(61 * kSecond), "61s");
  EXPECT_EQ(delay_text(1), "1s");
  EXPECT_EQ(delay_text(0), "0s");
  EXPECT_EQ(rough_delay_text(8 * kDay + 1), "8d");
  EXPECT_EQ(rough_delay_text(47 * 3600 * kSecond - 1), "47h");
  EXPECT_EQ(rough_delay_text(90 * kSecond), "90s");
  EXPECT_EQ(rough_delay_text(0), "0s");
}

}  // namespace
}  // namespace rekeyfs::store
