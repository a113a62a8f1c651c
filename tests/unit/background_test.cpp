// Background threads: waking, stopping, and survival of exceptions.
#include "engine/base/background.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <new>
#include <set>
#include <string>

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;

template <typename Condition>
bool comes_true(Condition condition) {
  for (int i = 0; i < 5000 && !condition(); ++i) std::this_thread::sleep_for(1ms);
  return condition();
}

TEST(BackgroundTest, WhatLeavesAStepDoesNotEndIt) {
  std::atomic<int> steps{0};
  Background background("test");
  ASSERT_TRUE(background.start([&]() -> Background::Duration {
    if (++steps == 1) throw std::bad_alloc();
    return Background::kUntilWoken;
  }));
  EXPECT_TRUE(comes_true([&] { return steps == 2; }));
}

TEST(BackgroundTest, RestsUntilItIsWoken) {
  std::atomic<int> steps{0};
  Background background("test");
  ASSERT_TRUE(background.start([&] {
    ++steps;
    return Background::kUntilWoken;
  }));
  ASSERT_TRUE(comes_true([&] { return steps == 1; }));
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(steps, 1);
  background.wake();
  EXPECT_TRUE(comes_true([&] { return steps == 2; }));
}

TEST(BackgroundTest, ACallDuringAStepIsNotLost) {
  std::atomic<int> steps{0};
  Background background("test");
  ASSERT_TRUE(background.start([&] {
    if (++steps == 1) background.wake();
    return Background::kUntilWoken;
  }));
  EXPECT_TRUE(comes_true([&] { return steps == 2; }));
}

TEST(BackgroundTest, StopEndsARestAndLongStepsSeeIt) {
  std::atomic<bool> in_step{false};
  Background background("test");
  ASSERT_TRUE(background.start([&] {
    in_step = true;
    while (background.is_running()) std::this_thread::sleep_for(1ms);
    return Background::kUntilWoken;
  }));
  ASSERT_TRUE(comes_true([&] { return in_step.load(); }));
  const auto begun = Background::Clock::now();
  background.stop();
  background.stop();
  EXPECT_LT(Background::Clock::now() - begun, 5s);
  EXPECT_FALSE(background.is_running());
}

TEST(BackgroundTest, AllItsThreadsTakeStepsUnderItsName) {
  Mutex mutex;
  std::set<std::thread::id> seen;
  std::set<std::string> names;
  Background background("several");
  ASSERT_TRUE(background.start(
      [&] {
        char name[16] = {};
        ::pthread_getname_np(::pthread_self(), name, sizeof name);
        Lock lock(mutex);
        seen.insert(std::this_thread::get_id());
        names.insert(name);
        return Background::kUntilWoken;
      },
      3));
  EXPECT_TRUE(comes_true([&] {
    Lock lock(mutex);
    return seen.size() == 3;
  }));
  background.stop();
  EXPECT_EQ(names, std::set<std::string>{"several"});
}

}  // namespace
}  // namespace rekeyfs
