#include "engine/boot/recording.h"

#include <utility>

namespace rekeyfs::boot {
namespace {

using namespace std::chrono_literals;
constexpr auto kLongest = 2min;
constexpr std::size_t kMaxUnits = (256u << 20) / BootProfile::kUnit;
// Less is not a boot but, for example, a look at the partition table or at a superblock.
constexpr std::uint64_t kLeast = 1u << 20;  // bytes

}  // namespace

bool Recording::note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size) {
  if (size == 0 || over_.load(std::memory_order_relaxed)) return false;
  Lock lock(mutex_);
  if (!begun_) begun_ = Clock::now();
  const std::uint64_t end = (offset + size - 1) / BootProfile::kUnit + 1;
  for (std::uint64_t unit = offset / BootProfile::kUnit; unit < end; ++unit)
    if (seen_.insert(static_cast<std::uint32_t>(unit)).second && is_of_booted(top, unit)) append(static_cast<std::uint32_t>(unit));
  const bool is_over = seen_.size() >= kMaxUnits || runs_.size() >= BootProfile::kMaxRuns || Clock::now() - *begun_ > kLongest;
  return is_over && !over_.exchange(true);
}

bool Recording::is_of_booted(blocks::Layer& top, std::uint64_t unit) const {
  if (top.id() == booted_) return true;
  const auto run = top.blocks().find(unit * BootProfile::kUnit / top.block_size());
  return run && run->entry.state == blocks::BlockState::base;
}

void Recording::append(std::uint32_t unit) {
  if (!runs_.empty() && runs_.back().end() == unit) ++runs_.back().count;
  else if (runs_.size() < BootProfile::kMaxRuns) runs_.push_back({unit, 1});
}

std::optional<BootProfile> Recording::take() {
  over_.store(true);
  Lock lock(mutex_);
  seen_ = {};
  BootProfile profile;
  profile.recorded = now();
  profile.runs = std::exchange(runs_, {});
  if (profile.bytes() < kLeast) return std::nullopt;
  return profile;
}

}  // namespace rekeyfs::boot
