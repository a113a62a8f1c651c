// Health: whether the store may be written. A failed sync makes it read-only until it is mounted again: the state of
// the unsynced data is unknown, and a retry could report success although data is lost. Thread-safe.
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

  // Errc::read_only, with the reason, after a failed sync.
  Status is_sound() const {
    if (!broken_.load(std::memory_order_relaxed)) return {};
    Lock lock(mutex_);
    return fail(Errc::read_only, reason_ + "; check the disk, unmount and mount again");
  }
  // The same, and for a store that was mounted read-only.
  Status may_write() const {
    RK_TRY(is_sound());
    if (read_only_) return fail(Errc::read_only, "the store was mounted read-only");
    return {};
  }
  // Returns the status of a sync unchanged and remembers a failure.
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
