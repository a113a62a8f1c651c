// Readers: whether anybody is reading from an image, for those who work in the background and give way.
//
// Thread-safe, and cheap: every read of every image goes through it.
#pragma once

#include <atomic>
#include <chrono>

namespace rekeyfs::replication {

class Readers {
 public:
  // A read under way, while it lives.
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

  // Somebody waits for an answer, or has just got one and is likely to ask for more.
  bool are_busy() const {
    constexpr Clock::duration kPause = std::chrono::milliseconds(2);
    if (under_way_.load(std::memory_order_relaxed) > 0) return true;
    return Clock::now().time_since_epoch().count() - last_.load(std::memory_order_relaxed) < kPause.count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::atomic<int> under_way_{0};
  std::atomic<Clock::rep> last_{0};  // when the latest one ended
};

}  // namespace rekeyfs::replication
