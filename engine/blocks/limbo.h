// Limbo: slots whose block has a newer version that is not durable yet, so that the old one may still be needed.
//
// A slot is in limbo from the journal segment in which its successor was recorded until a checkpoint no longer
// needs that segment. Kept as runs, because a truncation frees millions at once. Not thread-safe.
#pragma once

#include <map>
#include <vector>

#include "engine/blocks/block_entry.h"

namespace rekeyfs::blocks {

struct SlotRun {
  Slot first;
  std::uint64_t count;
};

class Limbo {
 public:
  void add(Slot slot, std::uint64_t segment) {
    const auto after = runs_.upper_bound(slot);
    if (after != runs_.begin()) {
      Run& before = std::prev(after)->second;
      if (before.end > slot) return;  // in already: a replayed change
      if (before.end == slot && before.segment == segment) {
        ++before.end;
        return;
      }
    }
    runs_.emplace(slot, Run{slot + 1, segment});
  }

  bool contains(Slot slot) const {
    const auto after = runs_.upper_bound(slot);
    return after != runs_.begin() && std::prev(after)->second.end > slot;
  }

  // The slot is in use again: a replayed change had put it here too early.
  void remove(Slot slot) {
    const auto after = runs_.upper_bound(slot);
    if (after == runs_.begin() || std::prev(after)->second.end <= slot) return;
    const auto found = std::prev(after);
    const Run run = found->second;
    if (slot + 1 < run.end) runs_.emplace(slot + 1, run);
    if (found->first == slot) runs_.erase(found);
    else found->second.end = slot;
  }

  // Runs whose successors were recorded before `segment`; they stay in limbo until remove().
  std::vector<SlotRun> older_than(std::uint64_t segment) const {
    std::vector<SlotRun> old;
    for (const auto& [first, run] : runs_)
      if (run.segment < segment) old.push_back({first, run.end - first});
    return old;
  }
  void remove_older_than(std::uint64_t segment) {
    std::erase_if(runs_, [&](const auto& run) { return run.second.segment < segment; });
  }
  bool empty() const { return runs_.empty(); }

 private:
  struct Run {
    Slot end;
    std::uint64_t segment;
  };
  std::map<Slot, Run> runs_;  // by first slot
};

}  // namespace rekeyfs::blocks
