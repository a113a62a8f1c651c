#include "engine/blocks/slot_allocator.h"

#include <algorithm>

namespace rekeyfs::blocks {

Result<Slot> SlotAllocator::choose(BlockIndex index, const BlockEntry& current) {
  if (index >= kBlockEnd) return fail(Errc::too_large, "an image has at most 16 TiB");
  const Slot home = index;
  const bool home_in_use = current.state == BlockState::data && current.slot == home;
  if (!home_in_use && !limbo_.contains(home) && !kept_.contains(home) && !is_being_punched(home)) {
    idle_.erase(home);
    return home;
  }
  if (const auto idle = idle_.lower_bound(kSpillBit); idle != idle_.end()) return idle_.extract(idle).value();
  if (const auto punched = punched_spill_.take()) return *punched;
  if (next_spill_ >= kSlotEnd - kSpillBit)
    return fail(Errc::too_large, "the image has no spill slots left: copy it, and use the copy");
  return kSpillBit | next_spill_++;
}

void SlotAllocator::use(Slot slot) {
  limbo_.remove(slot);
  kept_.remove(slot);
  if (slot & kSpillBit) next_spill_ = std::max(next_spill_, (slot & ~kSpillBit) + 1);
}

bool SlotAllocator::is_being_punched(Slot slot) const {
  const auto after = std::upper_bound(punching_.begin(), punching_.end(), slot, [](Slot s, const SlotRun& run) { return s < run.first; });
  return after != punching_.begin() && slot - std::prev(after)->first < std::prev(after)->count;
}

void SlotAllocator::keep(const SlotRun& homes) {
  limbo_.move_to(kept_, homes);
  idle_.erase(idle_.lower_bound(homes.first), idle_.lower_bound(homes.first + homes.count));
}

std::vector<SlotRun> SlotAllocator::unkeep(const SlotRun& homes) {
  kept_.move_to(limbo_, homes);
  return limbo_.others_in(homes);
}

std::vector<SlotRun> SlotAllocator::begin_punch(Segment first) {
  if (!punching_.empty()) return punching_;  // the previous ones were not punched, for lack of memory
  const bool is_at_rest = limbo_.empty();    // no slot was superseded since the last flush
  while (is_at_rest && !idle_.empty()) {
    limbo_.add(*idle_.begin(), kNoSegment);
    idle_.erase(idle_.begin());
  }
  kept_.take_older_than(first);  // they become free and keep their space
  punching_ = limbo_.take_older_than(first);
  while (!is_at_rest && may_idle_ && !punching_.empty() && idle_.size() < kMaxIdle) {
    SlotRun& last = punching_.back();
    idle_.insert(last.first + last.count - 1);
    if (--last.count == 0) punching_.pop_back();
  }
  return punching_;
}

void SlotAllocator::end_punch() {
  for (; !punching_.empty(); punching_.pop_back())
    if (punching_.back().first & kSpillBit) punched_spill_.add(punching_.back());
}

}  // namespace rekeyfs::blocks
