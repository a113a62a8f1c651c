// Recording: what is read of an image while somebody boots from it, until it makes a boot profile.
//
// It is over when the boot has taken two minutes or read 256 MiB, or when its owner takes the profile because the image
// was closed. Memory is bounded by that. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <unordered_set>

#include "engine/base/mutex.h"
#include "engine/blocks/layer.h"
#include "engine/boot/boot_profile.h"

namespace rekeyfs::boot {

class Recording {
 public:
  // `booted`: the layer that the profile will belong to. Where readers are in a clone over it, what the clone holds
  // itself does not count.
  explicit Recording(LayerId booted) : booted_(booted) {}

  LayerId booted() const { return booted_; }
  // A read of `top` that has succeeded. True once: when this made the recording over.
  bool note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size) EXCLUDES(mutex_);
  // Ends it. Nothing if less was read than a boot reads, and the second time.
  std::optional<BootProfile> take() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  bool is_of_booted(blocks::Layer& top, std::uint64_t unit) const;
  void append(std::uint32_t unit) REQUIRES(mutex_);

  const LayerId booted_;
  std::atomic<bool> over_{false};
  Mutex mutex_;
  std::optional<Clock::time_point> begun_ GUARDED_BY(mutex_);  // with the first read
  std::unordered_set<std::uint32_t> seen_ GUARDED_BY(mutex_);  // units
  std::vector<Run> runs_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::boot
