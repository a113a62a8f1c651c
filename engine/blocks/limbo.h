// Limbo: superseded slots that recovery may still need, because the newer version of their block is not durable yet.
//
// A slot is in limbo from the journal segment that recorded its successor until a checkpoint makes that segment
// superfluous. FreeSlots: slots that left limbo and may be written again. Both store runs of slots, because one
// truncation may free millions. Not thread-safe.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "engine/blocks/block_entry.h"

namespace rekeyfs::blocks {

struct SlotRun {
  Slot first;
  std::uint64_t count;
};

class Limbo {
 public:
  // False if the slot is in limbo already.
  bool add(Slot slot, std::uint64_t segment) {
    const auto after = runs_.upper_bound(slot);
    if (after != runs_.begin()) {
      Run& before = std::prev(after)->second;
      if (before.end > slot) return false;  // a change that is replayed or retried
      if (before.end == slot && before.segment == segment) {
        ++before.end;
        ++slots_;
        return true;
      }
    }
    runs_.emplace(slot, Run{slot + 1, segment});
    ++slots_;
    return true;
  }

  bool contains(Slot slot) const {
    const auto after = runs_.upper_bound(slot);
    return after != runs_.begin() && std::prev(after)->second.end > slot;
  }

  // Takes a slot out because it is in use again: a replayed change had added it too early.
  void remove(Slot slot) {
    const auto after = runs_.upper_bound(slot);
    if (after == runs_.begin() || std::prev(after)->second.end <= slot) return;
    const auto found = std::prev(after);
    const Run run = found->second;
    if (slot + 1 < run.end) runs_.emplace(slot + 1, run);
    --slots_;
    if (found->first == slot) runs_.erase(found);
    else found->second.end = slot;
  }

  // Takes out all slots whose successors were recorded before `segment`, as ascending runs with adjacent ones merged.
  // If it throws std::bad_alloc, nothing has changed.
  std::vector<SlotRun> take_older_than(std::uint64_t segment) {
    std::vector<SlotRun> old;
    for (const auto& [first, run] : runs_) {
      if (run.segment >= segment) continue;
      if (!old.empty() && old.back().first + old.back().count == first) old.back().count += run.end - first;
      else old.push_back({first, run.end - first});
    }
    for (const SlotRun& run : old) slots_ -= run.count;
    std::erase_if(runs_, [&](const auto& entry) { return entry.second.segment < segment; });
    return old;
  }
  // Moves the slots of `range` that are here to `other`, with their segments.
  void move_to(Limbo& other, const SlotRun& range) {
    const Slot end = range.first + range.count;
    auto at = runs_.upper_bound(range.first);
    if (at != runs_.begin()) --at;
    while (at != runs_.end() && at->first < end) {
      const auto current = at++;
      const auto [first, run] = *current;
      const Slot from = std::max(first, range.first), to = std::min(run.end, end);
      if (from >= to) continue;
      other.runs_.emplace(from, Run{to, run.segment});
      if (to < run.end) runs_.emplace(to, run);
      other.slots_ += to - from;
      slots_ -= to - from;
      if (from > first) current->second.end = from;
      else runs_.erase(current);
    }
  }
  // The parts of `range` that are not in limbo.
  std::vector<SlotRun> others_in(const SlotRun& range) const {
    std::vector<SlotRun> others;
    const Slot end = range.first + range.count;
    Slot free = range.first;
    auto at = runs_.upper_bound(range.first);
    if (at != runs_.begin()) --at;
    for (; at != runs_.end() && at->first < end; ++at) {
      if (free < at->first) others.push_back({free, at->first - free});
      free = std::max(free, at->second.end);
    }
    if (free < end) others.push_back({free, end - free});
    return others;
  }
  bool empty() const { return runs_.empty(); }
  std::uint64_t slots() const { return slots_; }

 private:
  struct Run {
    Slot end;
    std::uint64_t segment;
  };
  std::map<Slot, Run> runs_;  // key: first slot
  std::uint64_t slots_ = 0;
};

class FreeSlots {
 public:
  static constexpr std::size_t kMaxRuns = 4096;  // further runs are forgotten: slot numbers are plentiful

  // No slot of `run` may be present already.
  void add(SlotRun run) {
    auto after = runs_.upper_bound(run.first);
    if (after != runs_.end() && run.first + run.count == after->first) {
      run.count += after->second;
      after = runs_.erase(after);
    }
    if (after != runs_.begin()) {
      auto& [first, count] = *std::prev(after);
      if (first + count == run.first) {
        count += run.count;
        return;
      }
    }
    if (runs_.size() < kMaxRuns) runs_.emplace(run.first, run.count);
  }
  // Takes the lowest slot.
  std::optional<Slot> take() {
    if (runs_.empty()) return std::nullopt;
    const auto [first, count] = *runs_.begin();
    runs_.erase(runs_.begin());
    if (count > 1) runs_.emplace(first + 1, count - 1);
    return first;
  }

 private:
  std::map<Slot, std::uint64_t> runs_;  // first slot -> number of slots
};

}  // namespace rekeyfs::blocks
