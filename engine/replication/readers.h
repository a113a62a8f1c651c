// Readers: whether any image is being read now, so that background work can yield to readers.
//
// Thread-safe and cheap: every read of every image passes through it.
#pragma once

#include <atomic>
#include <chrono>

namespace rekeyfs::replication {

class Readers {
 public:
  // A read in progress for the lifetime of the object.
  class Read {
   public:
    explicit Read(Readers& readers) : readers_(readers) { readers_.under_way_.fetch_add(1, std::memory_order_relaxed); }
    ~Read() {
      readers_.last_.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
      readers_.under_way_.fetch_sub(1, std::memory_order_relaxed);
    }
    Read(const Read&) = delete;
    Read& operator=(const Read&) = delete;

   private:
    Readers& readers_;
  };

  // True while a read is in progress, and shortly after one, when more are likely to follow.
  bool are_busy() const {
    constexpr Clock::duration kPause = std::chrono::milliseconds(2);
    if (under_way_.load(std::memory_order_relaxed) > 0) return true;
    return Clock::now().time_since_epoch().count() - last_.load(std::memory_order_relaxed) < kPause.count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::atomic<int> under_way_{0};
  std::atomic<Clock::rep> last_{0};  // end of the latest read
};

}  // namespace rekeyfs::replication
