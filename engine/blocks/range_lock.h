// RangeLock: exclusive locks on block ranges of one layer. Changes of the same block never overlap; changes of
// different blocks run in parallel. Thread-safe. A thread that holds a range must not lock a second one.
#pragma once

#include <vector>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"

namespace rekeyfs::blocks {

class RangeLock {
 public:
  static constexpr BlockIndex kEnd = ~BlockIndex{0};

  class Held {
   public:
    Held(Held&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)), first_(other.first_), end_(other.end_) {}
    Held& operator=(Held&&) = delete;
    ~Held() {
      if (lock_) lock_->unlock(first_, end_);
    }

   private:
    friend class RangeLock;
    Held(RangeLock* lock, BlockIndex first, BlockIndex end) : lock_(lock), first_(first), end_(end) {}
    RangeLock* lock_;
    BlockIndex first_, end_;
  };

  // Locks blocks [first, end).
  [[nodiscard]] Held acquire(BlockIndex first, BlockIndex end) {
    Lock lock(mutex_);
    while (overlaps(first, end)) freed_.wait(mutex_);
    held_.push_back({first, end});
    return Held(this, first, end);
  }

 private:
  struct Range {
    BlockIndex first, end;
  };
  bool overlaps(BlockIndex first, BlockIndex end) const REQUIRES(mutex_) {
    for (const Range& range : held_)
      if (first < range.end && range.first < end) return true;
    return false;
  }
  void unlock(BlockIndex first, BlockIndex end) {
    Lock lock(mutex_);
    std::erase_if(held_, [&](const Range& range) { return range.first == first && range.end == end; });
    freed_.notify_all();
  }

  Mutex mutex_;
  CondVar freed_;
  std::vector<Range> held_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::blocks
