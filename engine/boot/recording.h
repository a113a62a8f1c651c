// Recording: records the reads of an image during a boot and turns them into a boot profile.
//
// It ends after two minutes or 256 MiB of reads, or when its owner takes the profile because the image was closed. This
// bounds its memory. Thread-safe.
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
  // `booted`: the layer that the profile will belong to. If readers read through a clone above it, blocks that the
  // clone stores itself are ignored.
  explicit Recording(LayerId booted) : booted_(booted) {}

  LayerId booted() const { return booted_; }
  // Records a successful read of `top`. True once: when this read ended the recording.
  bool note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size) EXCLUDES(mutex_);
  // Ends the recording. nullopt if less was read than a boot reads, and at every further call.
  std::optional<BootProfile> take() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  bool is_of_booted(blocks::Layer& top, std::uint64_t unit) const;
  void append(std::uint32_t unit) REQUIRES(mutex_);

  const LayerId booted_;
  std::atomic<bool> over_{false};
  Mutex mutex_;
  std::optional<Clock::time_point> begun_ GUARDED_BY(mutex_);  // time of the first read
  std::unordered_set<std::uint32_t> seen_ GUARDED_BY(mutex_);  // units already recorded
  std::vector<Run> runs_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::boot
