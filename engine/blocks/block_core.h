// BlockCore: the in-memory state of a layer: the state of each block, the size of the content, and the slots.
//
//   state   a read gives             a write  zeroing  take_from_base  filling
//   hole    zeros                    data     hole     base            stays
//   base    what the base has there  data     hole     base            data, or hole where the base reads zero
//   data    its slot's bytes         data     hole     base            stays
//   lost    Errc::corrupt            data     hole     base            Errc::corrupt
//
// Blocks beyond the content are holes or remains of an earlier, longer content; the remains become holes before the
// content grows over them. A block of zeros is written as a hole. State "base" names no base layer: the Layer knows its
// base.
//
// A change is applied here after the journal has recorded it. Applying it can fail for a transient reason (no memory,
// no descriptor to read a table page). Until it succeeds, the core accepts no other change, chooses no slot and makes
// no snapshot: see catch_up(). Not thread-safe: BlockStore's lock guards it. find_cached() and the const accessors may
// run under the shared lock.
#pragma once

#include "engine/blocks/layer_record.h"
#include "engine/blocks/slot_allocator.h"

namespace rekeyfs::blocks {

class BlockCore {
 public:
  using Segment = SlotAllocator::Segment;

  // Restores the state of the last checkpoint.
  BlockCore(LayerId layer, const crypto::Mac& mac, BlockTable::OpenFile open_file, const LayerTableRecord& record, PageBudget& budget);

  std::uint64_t size() const { return size_; }      // bytes of content
  std::uint64_t stored() const { return stored_; }  // bytes of blocks in slots
  BlockIndex filled() const { return filled_; }     // no block before this one is in state "base"
  void set_filled(BlockIndex next) { filled_ = next; }
  bool is_all(TableRoot::State state) const { return table_.is_uniform(state); }
  // Work that waits for a checkpoint.
  std::size_t dirty_pages() const { return table_.dirty_pages(); }
  std::uint64_t slots_in_limbo() const { return slots_.in_limbo(); }

  Result<std::optional<BlockTable::Run>> find_cached(BlockIndex index) const { return table_.find_cached(index); }
  Result<BlockTable::Run> find(BlockIndex index) { return table_.find(index); }

  // Assigns a writable slot to each entry in state data; entries[0] belongs to block `first`.
  Status choose_slots(BlockIndex first, std::vector<BlockEntry>& entries);
  // Releases the slots of a change that was not recorded: no entry refers to them.
  void abandon(const std::vector<BlockEntry>& entries);
  // Applies a change that the journal recorded in `segment`.
  Status apply(LayerChange change, Segment segment);
  // Finishes a recorded change that was applied only in part. If a table page is gone, the blocks below that page are
  // skipped and the rest is applied.
  Status catch_up();

  struct Snapshot {
    std::vector<BlockTable::PageWrite> pages;
    LayerTableRecord record;
  };
  // See BlockTable::snapshot(). The caller then calls write_pages() without the lock and settle() afterwards.
  Result<Snapshot> snapshot();
  Status write_pages(const std::vector<BlockTable::PageWrite>& pages) { return table_.write(pages); }
  io::File* table_file() { return table_.file(); }
  void settle(bool committed) { committed ? table_.committed() : table_.failed(); }
  Status mark_lost(const BlockTable::Lost& lost) { return table_.mark_lost(lost); }
  SlotAllocator& slots() { return slots_; }

 private:
  Status take_in(const LayerChange& change, Segment segment);
  Status take_in_entry(BlockIndex index, const BlockEntry& entry, Segment segment);

  BlockTable table_;
  SlotAllocator slots_;
  std::uint64_t size_;
  std::uint64_t stored_;
  BlockIndex filled_;
  struct Recorded {
    LayerChange change;
    Segment segment;
    bool is_retried = false;
  };
  std::optional<Recorded> unapplied_;  // recorded, but not fully applied to the table
};

}  // namespace rekeyfs::blocks
