// SlotAllocator: which slots of a layer may be written.
//
// Invariant: each slot that was ever given out is in exactly one place.
//
//   in use    an entry of the table names it, or a change that is being made has chosen it; kept by nobody here
//   limbo     a newer version of its block is recorded, in a journal segment that recovery may still start from
//   kept      as limbo; it is free after that, and its space stays, for a block that room is promised to
//   punching  recovery does not need it; its space is being given back
//   idle      free, and still allocated, so that writing it again costs the file system nothing
//   punched   free, its space given back. Only spill slots are remembered: a home slot is its block's anyway
//
//   in use --supersede()--> limbo --begin_punch()--> idle or punching --end_punch()--> punched --choose()--> in use
//   in use --abandon()----> limbo (for no segment's sake)             idle --choose()--> in use
//
// A layer that is at rest gives its idle slots back as well. keep() and unkeep() are for home slots of blocks without data.
// Not thread-safe.
#pragma once

#include <set>
#include <vector>

#include "engine/base/result.h"
#include "engine/blocks/limbo.h"

namespace rekeyfs::blocks {

class SlotAllocator {
 public:
  using Segment = std::uint64_t;  // of the journal

  // Spill slots below `next_spill` were given out before.
  explicit SlotAllocator(std::uint64_t next_spill) : next_spill_(next_spill) {}

  // A slot for a new version of the block, whose entry is `current`: its home slot if that is free, else a spill slot.
  Result<Slot> choose(BlockIndex index, const BlockEntry& current);
  // The change that chose the slot was not recorded: nobody will ever look into it.
  void abandon(Slot slot) { limbo_.add(slot, kNoSegment); }
  // A newer version of the slot's block was recorded in the segment. False if it is in limbo already.
  bool supersede(Slot slot, Segment segment) { return limbo_.add(slot, segment); }
  // An entry names it, whatever was thought of it before: a replayed change may have put it into limbo too early.
  void use(Slot slot);

  // The space of these home slots, as far as they have any, stays, for the blocks have none: whoever reserves it now has it
  // until they are written.
  void keep(const SlotRun& homes);
  // Not any more. Those that can be punched at once; the others are when recovery does not need them.
  std::vector<SlotRun> unkeep(const SlotRun& homes);

  // Sorts the slots that no recovery from `first` on can need: some become idle, the others are to be punched.
  std::vector<SlotRun> begin_punch(Segment first);
  void end_punch();
  // Slots become idle from now on: not in recovery, after which layers are closed.
  void may_idle() { may_idle_ = true; }

  std::uint64_t next_spill() const { return next_spill_; }
  std::uint64_t in_limbo() const { return limbo_.slots(); }
  bool waits_for_flush() const { return !limbo_.empty() || !kept_.empty() || !idle_.empty() || !punching_.empty(); }

 private:
  static constexpr Segment kNoSegment = 0;
  // To give back and allocate again costs a file system more than all the rest of a small write. A kill leaves at most these.
  static constexpr std::size_t kMostIdle = 8192;

  bool is_being_punched(Slot slot) const;

  std::uint64_t next_spill_;
  Limbo limbo_, kept_;
  std::vector<SlotRun> punching_;  // ascending
  std::set<Slot> idle_;
  FreeSlots punched_spill_;
  bool may_idle_ = false;
};

}  // namespace rekeyfs::blocks
