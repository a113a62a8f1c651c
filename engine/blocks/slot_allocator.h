// SlotAllocator: decides which slots of a layer may be written.
//
// Invariant: each slot that was ever assigned is in exactly one of these states.
//
//   in use    named by a table entry, or chosen by a change in progress; not recorded here
//   limbo     a newer version of its block is recorded, in a journal segment that recovery may still start from
//   kept      like limbo, but afterwards it becomes free with its space, which is promised to its block
//   punching  not needed by recovery; its space is being freed
//   idle      free but still allocated, so that writing it again costs the file system nothing
//   punched   free, without space. Only spill slots are recorded: a home slot always belongs to its block
//
//   in use --supersede()--> limbo --begin_punch()--> idle or punching --end_punch()--> punched --choose()--> in use
//   in use --abandon()----> limbo (of no segment)                     idle --choose()--> in use
//
// Idle slots of a layer at rest are punched, too. keep() and unkeep() take home slots of blocks without data. Not
// thread-safe.
#pragma once

#include <set>
#include <vector>

#include "engine/base/result.h"
#include "engine/blocks/limbo.h"

namespace rekeyfs::blocks {

class SlotAllocator {
 public:
  using Segment = std::uint64_t;  // of the journal

  // All spill slots below `next_spill` were assigned before.
  explicit SlotAllocator(std::uint64_t next_spill) : next_spill_(next_spill) {}

  // Chooses a slot for a new version of a block whose entry is `current`: its home slot if that is free, else a spill
  // slot.
  Result<Slot> choose(BlockIndex index, const BlockEntry& current);
  // Releases the slot of a change that was not recorded: no entry refers to it.
  void abandon(Slot slot) { limbo_.add(slot, kNoSegment); }
  // A newer version of the slot's block was recorded in `segment`. False if the slot is in limbo already.
  bool supersede(Slot slot, Segment segment) { return limbo_.add(slot, segment); }
  // Marks a slot as in use because an entry names it. Replaying an older change may have put it into limbo.
  void use(Slot slot);

  // Keeps the space of these home slots, whose blocks have no data, until the blocks are written: the caller reserves
  // it for them.
  void keep(const SlotRun& homes);
  // Undoes keep(). Returns the slots to punch now; the others follow when recovery no longer needs them.
  std::vector<SlotRun> unkeep(const SlotRun& homes);

  // Takes out of limbo all slots that recovery from `first` on cannot need. Some become idle; the returned ones must be
  // punched.
  std::vector<SlotRun> begin_punch(Segment first);
  void end_punch();
  // From now on slots may become idle. Not called before recovery has ended, because recovery closes its layers.
  void may_idle() { may_idle_ = true; }

  std::uint64_t next_spill() const { return next_spill_; }
  std::uint64_t in_limbo() const { return limbo_.slots(); }
  bool waits_for_flush() const { return !limbo_.empty() || !kept_.empty() || !idle_.empty() || !punching_.empty(); }

 private:
  static constexpr Segment kNoSegment = 0;
  // Punching and allocating again costs a file system more than the rest of a small write. A kill leaves at most this
  // many.
  static constexpr std::size_t kMaxIdle = 8192;

  bool is_being_punched(Slot slot) const;

  std::uint64_t next_spill_;
  Limbo limbo_, kept_;
  std::vector<SlotRun> punching_;  // ascending
  std::set<Slot> idle_;
  FreeSlots punched_spill_;
  bool may_idle_ = false;
};

}  // namespace rekeyfs::blocks
