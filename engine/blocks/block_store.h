// BlockStore: the blocks of one layer, sealed with one data key, in the layer's slots.
//
// A change is made in two steps: store() seals blocks and writes them to slots that are free, commit() records where they are.
// It is in the journal, and so survives the process, when commit() returns.
// Thread-safe. changing_ puts changes in one order, in the journal as in the core; mutex_ guards the core, exclusively only while
// memory changes or a page of the table is read. Sealing, opening, the slots' files and the journal's append run outside
// mutex_, so a reader waits for none of them. Two changes of one block must not overlap: the caller sees to that.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/blocks/block_core.h"
#include "engine/blocks/layer_cipher.h"
#include "engine/blocks/slot_files.h"
#include "engine/blocks/table_file.h"
#include "engine/blocks/touch.h"

namespace rekeyfs::blocks {

class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  // A layer changes for the first time since its last flush. Called with the layer's lock held.
  virtual void layer_changed(LayerId layer) = 0;
  // A change that means something to an inode is about to be recorded in the transaction.
  virtual Status touch(catalog::WriteTxn& txn, const Touch& touch) = 0;
};

class BlockStore {
 public:
  struct Parts {  // all outlive it
    io::Storage& storage;
    catalog::Catalog& catalog;
    const crypto::Mac& table_mac;
    PageBudget& budget;
    LayerObserver& observer;
  };
  BlockStore(const Parts& parts, LayerId id, BlockGrid grid, const LayerTableRecord& table, std::unique_ptr<LayerCipher> cipher);

  LayerId id() const { return id_; }
  BlockGrid grid() const { return grid_; }
  std::uint64_t size() const;
  std::uint64_t stored() const;
  BlockIndex filled() const;
  bool is_all(TableRoot::State state) const;
  Result<BlockTable::Run> find(BlockIndex index);
  Result<std::vector<BlockTable::Run>> runs_of(BlockIndex first, BlockIndex end);
  // Whether the block that content of this size ends in holds nothing but zeros behind it.
  Result<bool> is_zero_behind(std::uint64_t size);

  LayerCipher& cipher() { return *cipher_; }
  const LayerCipher& cipher() const { return *cipher_; }

  // Reads bytes of blocks with data, from block `first` on, whose slots lie side by side. How many bytes; fewer than asked for
  // if the block that comes then has no data any more.
  Result<std::size_t> read(BlockIndex first, const std::vector<BlockEntry>& entries, std::uint64_t offset, ByteSpan out);
  // Whether the entry's slot holds what it says; an error if that cannot be known.
  Status verify(BlockIndex index, const BlockEntry& entry);

  // Seals blocks and writes them to free slots. `plain` starts at a block; its last one may be short, then the rest of it is
  // zeros. What comes back goes to commit() or abandon().
  Result<std::vector<BlockEntry>> store(BlockIndex first, ByteView plain);
  void abandon(const std::vector<BlockEntry>& entries);
  // `may_grow`: a larger size stays. On failure the change's slots are abandoned.
  Status commit(LayerChange change, bool may_grow, const Touch& touch) EXCLUDES(changing_, mutex_);
  void set_filled(BlockIndex next);
  // Takes space now for the blocks of the range that have no data, so that writing them cannot fail for want of it.
  // Errc::no_space if there is not enough for all. It is the space of their home slots, so it lasts over mounts.
  Status promise(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // Gives back the space that was promised to blocks of the range.
  Status release(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // The same from a block on, for content that ended before `end`: promises may go beyond it.
  Status release_tail(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // Deleted: further changes answer Errc::stale.
  void retire() { retired_.store(true); }

  // What waits for a checkpoint.
  struct Pressure {
    std::size_t dirty_pages = 0;
    std::uint64_t limbo_slots = 0;
  };
  Pressure pressure() const;
  // Makes the bytes of the slots durable.
  Status sync() { return files_.sync(); }
  bool needs_sync() const { return files_.needs_sync(); }

  // For LayerFlush, which says in which order.
  Result<BlockCore::Snapshot> begin_flush() EXCLUDES(changing_, mutex_);
  Status write_pages(const std::vector<BlockTable::PageWrite>& pages);
  Status sync_table();
  void flush_failed();
  void flush_committed();
  // Gives back the space of slots that no recovery from `first_segment` on can need. `sorted` is called before the files are
  // changed: the slots are out of limbo then.
  void give_back(catalog::SegmentNumber first_segment, const std::function<void()>& sorted) EXCLUDES(space_, mutex_);

  // For LayerReplay and checks: takes in a change that the journal has.
  Status replay(const LayerChange& change, catalog::SegmentNumber segment);
  Status mark_lost(const BlockTable::Lost& lost);

 private:
  // An entry that says more than a block can hold does not verify.
  std::size_t stored_size(const BlockEntry& entry) const { return std::min(entry.stored_length, grid_.block_size()); }
  Result<bool> read_one(BlockIndex index, BlockEntry entry, std::uint64_t offset, ByteSpan out);
  // Visits the home slots of the blocks of the range that have no data.
  using VisitHomes = std::function<Status(const SlotRun& homes)>;
  Status each_without_data(BlockIndex first, BlockIndex end, const VisitHomes& visit);
  Result<std::uint64_t> bytes_to_promise(BlockIndex first, BlockIndex end);
  Status release_homes(BlockIndex first, BlockIndex end) REQUIRES(space_);
  Status choose_slots(BlockIndex first, std::vector<BlockEntry>& entries);
  Status write_slots(const std::vector<BlockEntry>& entries, ByteView sealed);
  Status prepare_change() REQUIRES(changing_) EXCLUDES(mutex_);
  Result<catalog::SegmentNumber> record(const LayerChange& change, const Touch& touch) REQUIRES(changing_) EXCLUDES(mutex_);
  void mark_changed() REQUIRES(mutex_);

  const LayerId id_;
  const BlockGrid grid_;
  io::Storage& storage_;
  catalog::Catalog& catalog_;
  LayerObserver& observer_;
  const std::unique_ptr<LayerCipher> cipher_;
  SlotFiles files_;
  TableFile table_file_;
  std::atomic<bool> retired_{false};

  Mutex space_;  // held while slots get space or lose it; before mutex_
  BlockIndex promised_end_ GUARDED_BY(space_) = 0;  // since the layer was opened
  Mutex changing_;
  mutable SharedMutex mutex_;
  BlockCore core_ GUARDED_BY(mutex_);
  bool changed_ GUARDED_BY(mutex_) = false;  // since the last begin_flush()
};

}  // namespace rekeyfs::blocks
