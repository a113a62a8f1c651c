// Background: one or more threads that repeat a step of work and rest in between until there is more.
//
// An object with background work owns a Background as its last member, so that the threads end before the members that
// they use are destroyed. An exception from a step is logged and the step repeated a second later, so that running out
// of memory does not end the process. Thread-safe, except start() and stop(). wake() and is_running() may be called
// while holding the owner's locks.
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
  // One step: called without a lock; returns how long to rest afterwards. wake() ends a rest early, even one that has
  // not begun.
  using Step = std::function<Duration()>;
  static constexpr Duration kUntilWoken = std::chrono::hours(1);

  // `name` is the threads' name in ps(1) and in the log: at most 15 characters; must outlive the object. `niceness` as
  // in nice(1).
  explicit Background(const char* name, int niceness = 0) : name_(name), niceness_(niceness) {}
  ~Background() { stop(); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // All threads run the same step.
  Status start(Step step, unsigned threads = 1) EXCLUDES(mutex_);
  void stop() EXCLUDES(mutex_);  // waits for the steps in progress; no-op if it was never started
  void wake() EXCLUDES(mutex_);
  bool is_running() const EXCLUDES(mutex_);  // long steps check this and end early

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
  std::uint64_t calls_ GUARDED_BY(mutex_) = 0;  // number of wake() calls
};

}  // namespace rekeyfs
