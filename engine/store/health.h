// Health: whether the store may still be written. A failed sync turns it read-only for good: what the kernel then
// still holds is unknown, and a retry that succeeds would lie. Thread-safe.
#pragma once

#include <atomic>

#include "engine/base/log.h"
#include "engine/base/result.h"

namespace rekeyfs::store {

class Health {
 public:
  explicit Health(bool read_only) : read_only_(read_only) {}

  // Errc::read_only once nothing may be written any more.
  Status is_sound() const {
    if (broken_.load(std::memory_order_relaxed))
      return fail(Errc::read_only, "the store is read-only since a sync failed: check the disk, unmount and mount again");
    return {};
  }
  // The same, or as long as users may not change the store.
  Status may_write() const {
    RK_TRY(is_sound());
    if (read_only_) return fail(Errc::read_only, "the store was mounted read-only");
    return {};
  }
  // Passes the status of a sync on, and remembers a failure. A full disk is not one.
  Status after_sync(Status status) {
    if (!status && status.error().code != Errc::no_space && !broken_.exchange(true))
      log::error("a sync failed, the store is read-only from now on: {}", describe(status.error()));
    return status;
  }

 private:
  const bool read_only_;
  std::atomic<bool> broken_{false};
};

}  // namespace rekeyfs::store
