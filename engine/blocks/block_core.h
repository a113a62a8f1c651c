// BlockCore: what a layer knows of its blocks: the state of each, the size of the content, and the slots.
//
//   state   a read gives             a write  zeroing  take_from_base  filling
//   hole    zeros                    data     hole     base            stays
//   base    what the base has there  data     hole     base            data, or hole where the base reads zero
//   data    its slot's bytes         data     hole     base            stays
//   lost    Errc::corrupt            data     hole     base            Errc::corrupt
//
// Blocks beyond the content are holes, or what an earlier, longer content left; they are made holes before the content grows
// over them. A block of zeros is written as a hole. "base" says what to do and not from where: the layer knows its base.
//
// A change is on record before it is here. What keeps it from getting here (no memory, no descriptor to read a page by) may
// pass; until it does, the core takes no other change, chooses no slot and makes no snapshot: see catch_up().
// Not thread-safe: BlockStore's lock guards it. find_cached() and the questions may run under the shared lock.
#pragma once

#include "engine/blocks/layer_record.h"
#include "engine/blocks/slot_allocator.h"

namespace rekeyfs::blocks {

class BlockCore {
 public:
  using Segment = SlotAllocator::Segment;

  // As of the last checkpoint.
  BlockCore(LayerId layer, const crypto::Mac& mac, BlockTable::OpenFile open_file, const LayerTableRecord& record, PageBudget& budget);

  std::uint64_t size() const { return size_; }      // bytes of content
  std::uint64_t stored() const { return stored_; }  // bytes of blocks in slots
  BlockIndex filled() const { return filled_; }     // blocks before it hold nothing "from base"
  void set_filled(BlockIndex next) { filled_ = next; }
  bool is_all(TableRoot::State state) const { return table_.is_uniform(state); }
  // What waits for a checkpoint.
  std::size_t dirty_pages() const { return table_.dirty_pages(); }
  std::uint64_t slots_in_limbo() const { return slots_.in_limbo(); }

  Result<std::optional<BlockTable::Run>> find_cached(BlockIndex index) const { return table_.find_cached(index); }
  Result<BlockTable::Run> find(BlockIndex index) { return table_.find(index); }

  // Gives each entry of a block with data, from block `first` on, a slot that may be written.
  Status choose_slots(BlockIndex first, std::vector<BlockEntry>& entries);
  // The change was not recorded: nobody will ever look into its slots.
  void abandon(const std::vector<BlockEntry>& entries);
  // Takes in a change that is on record in that segment.
  Status apply(LayerChange change, Segment segment);
  // Finishes a change that is on record and was not taken in to the end. Errors that say that a page of the table is gone
  // cost the change the blocks of that page only.
  Status catch_up();

  struct Snapshot {
    std::vector<BlockTable::PageWrite> pages;
    LayerTableRecord record;
  };
  // As BlockTable::snapshot(); then write_pages() without the lock, then settle().
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
  std::optional<Recorded> unapplied_;  // on record, and not wholly in the table
};

}  // namespace rekeyfs::blocks
