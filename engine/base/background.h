// Background: one or more threads that do a piece of work again and again, and rest in between until there is more.
//
// Whoever has background work owns one, as its last member, so that the threads end before what they use. An exception
// that leaves a step is logged and the step taken again a second later: running out of memory must not end the process.
// Thread-safe, except start() and stop(). wake() and is_running() may be called with the owner's locks held.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/base/result.h"

namespace rekeyfs {

class Background {
 public:
  using Clock = std::chrono::steady_clock;
  using Duration = Clock::duration;
  // Does a piece of the work, without a lock held, and says how long to rest after it. wake() ends a rest early, even one
  // that has not begun.
  using Step = std::function<Duration()>;
  static constexpr Duration kUntilWoken = std::chrono::hours(1);

  // `name` is the threads', in ps(1) and in the log: at most 15 characters, outlives it. `niceness` is nice(1)'s.
  explicit Background(const char* name, int niceness = 0) : name_(name), niceness_(niceness) {}
  ~Background() { stop(); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // All threads take the same step.
  Status start(Step step, unsigned threads = 1) EXCLUDES(mutex_);
  void stop() EXCLUDES(mutex_);  // after the steps under way; fine if it was never started
  void wake() EXCLUDES(mutex_);
  bool is_running() const EXCLUDES(mutex_);  // long steps look, and end early

 private:
  void run();
  Duration take_step() noexcept;
  void rest(Duration duration, std::uint64_t heard) EXCLUDES(mutex_);

  const char* const name_;
  const int niceness_;
  Step step_;
  std::vector<std::thread> threads_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool running_ GUARDED_BY(mutex_) = false;
  std::uint64_t calls_ GUARDED_BY(mutex_) = 0;  // of wake()
};

}  // namespace rekeyfs
