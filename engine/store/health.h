// Health: whether the store may still be written. A failed sync turns it read-only for good: what the kernel then
// still holds is unknown, and a retry that succeeds would lie. Thread-safe.
#pragma once

#include <atomic>

#include "engine/base/log.h"
#include "engine/base/mutex.h"
#include "engine/base/result.h"
#include "engine/base/shortage.h"

namespace rekeyfs::store {

class Health {
 public:
  explicit Health(bool read_only) : read_only_(read_only) {}

  // Errc::read_only, with the reason, once nothing may be written any more.
  Status is_sound() const {
    if (!broken_.load(std::memory_order_relaxed)) return {};
    Lock lock(mutex_);
    return fail(Errc::read_only, reason_ + "; check the disk, unmount and mount again");
  }
  // The same, or as long as users may not change the store.
  Status may_write() const {
    RK_TRY(is_sound());
    if (read_only_) return fail(Errc::read_only, "the store was mounted read-only");
    return {};
  }
  // Passes the status of a sync on, and remembers a failure.
  Status after_sync(Status status) {
    if (status || is_shortage(status.error().code)) return status;
    Lock lock(mutex_);
    if (broken_.load()) return status;
    reason_ = "the store is read-only since a failed sync: " + describe(status.error());
    broken_.store(true);
    log::error("{}", reason_);
    return status;
  }

 private:
  const bool read_only_;
  std::atomic<bool> broken_{false};
  mutable Mutex mutex_;
  std::string reason_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::store
