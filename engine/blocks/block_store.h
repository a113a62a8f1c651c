// BlockStore: the blocks of one layer, encrypted with one data key, in the layer's slots.
//
// A change has two steps: store() encrypts blocks and writes them to free slots; commit() records the new entries in
// the journal. The change survives a crash of the process once commit() has returned.
//
// Thread-safe. changing_ gives changes the same order in the journal and in the core. mutex_ guards the core; it is
// held exclusively only while memory changes or a table page is read. Encryption, decryption, slot I/O and the journal
// append run without mutex_, so readers wait for none of them. The caller ensures that two concurrent changes never
// overlap in a block.
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
  // Called at a layer's first change since its last flush. The caller holds the layer's lock.
  virtual void layer_changed(LayerId layer) = 0;
  // Called before a change that affects an inode is recorded; adds the inode's records to the transaction.
  virtual Status touch(catalog::WriteTxn& txn, const Touch& touch) = 0;
};

class BlockStore {
 public:
  struct Parts {  // all must outlive the BlockStore
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
  // Whether the last block of a content of `size` bytes holds only zeros after the end of the content.
  Result<bool> is_zero_behind(std::uint64_t size);

  LayerCipher& cipher() { return *cipher_; }
  const LayerCipher& cipher() const { return *cipher_; }

  // Reads bytes of consecutive data blocks, from block `first` on, whose slots are adjacent. Returns the number of
  // bytes read: fewer than requested if a block has lost its data in the meantime.
  Result<std::size_t> read(BlockIndex first, const std::vector<BlockEntry>& entries, std::uint64_t offset, ByteSpan out);
  // Whether the entry's slot holds the block that the entry describes. Fails if the slot cannot be read.
  Status verify(BlockIndex index, const BlockEntry& entry);

  // Encrypts blocks and writes them to free slots. `plain` starts at a block border; a short last block is padded with
  // zeros. The caller passes the returned entries to commit() or to abandon().
  Result<std::vector<BlockEntry>> store(BlockIndex first, ByteView plain);
  void abandon(const std::vector<BlockEntry>& entries);
  // With `may_grow`, the content's size only grows: a larger current size is kept. On failure the change's slots are
  // abandoned.
  Status commit(LayerChange change, bool may_grow, const Touch& touch) EXCLUDES(changing_, mutex_);
  void set_filled(BlockIndex next);
  // Allocates space for all blocks of the range that have no data, so that later writes to them cannot fail with
  // ENOSPC. Errc::no_space if the disk cannot hold all of them. The space is allocated in their home slots, so the
  // promise survives a remount.
  Status promise(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // Frees the space promised to blocks of the range.
  Status release(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // Like release(), from block `first` on, for content that ended before `end`: promised blocks may lie beyond it.
  Status release_tail(BlockIndex first, BlockIndex end) EXCLUDES(space_, mutex_);
  // Bytes that storing all blocks of the range would add to stored(): those of blocks without data.
  Result<std::uint64_t> bytes_without_data(BlockIndex first, BlockIndex end);
  // The same without space that is allocated already, as after promise().
  Result<std::uint64_t> bytes_to_promise(BlockIndex first, BlockIndex end);
  // The layer was deleted: further changes fail with Errc::stale.
  void retire() { retired_.store(true); }

  // Work that waits for a checkpoint.
  struct Pressure {
    std::size_t dirty_pages = 0;
    std::uint64_t limbo_slots = 0;
  };
  Pressure pressure() const;
  // Makes the contents of the slots durable.
  Status sync() { return files_.sync(); }
  bool needs_sync() const { return files_.needs_sync(); }

  // For LayerFlush, which defines the order of these calls.
  Result<BlockCore::Snapshot> begin_flush() EXCLUDES(changing_, mutex_);
  Status write_pages(const std::vector<BlockTable::PageWrite>& pages);
  Status sync_table();
  void flush_failed();
  void flush_committed();
  // Frees the space of slots that recovery from `first_segment` on cannot need. Calls `sorted` when these slots have
  // left limbo, before any file is changed.
  void give_back(catalog::SegmentNumber first_segment, const std::function<void()>& sorted) EXCLUDES(space_, mutex_);

  // For LayerReplay and checks: applies a change that the journal has recorded.
  Status replay(const LayerChange& change, catalog::SegmentNumber segment);
  Status mark_lost(const BlockTable::Lost& lost);

 private:
  // Clamped to the block size: an entry with a larger length then fails verification.
  std::size_t stored_size(const BlockEntry& entry) const { return std::min(entry.stored_length, grid_.block_size()); }
  Result<bool> read_one(BlockIndex index, BlockEntry entry, std::uint64_t offset, ByteSpan out);
  // Visits the home slots of all blocks of the range that have no data.
  using VisitHomes = std::function<Status(const SlotRun& homes)>;
  Status each_without_data(BlockIndex first, BlockIndex end, const VisitHomes& visit);
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

  Mutex space_;  // held while slots gain or lose space; taken before mutex_
  BlockIndex promised_end_ GUARDED_BY(space_) = 0;  // end of all promises made since the layer was opened
  Mutex changing_;
  mutable SharedMutex mutex_;
  BlockCore core_ GUARDED_BY(mutex_);
  bool changed_ GUARDED_BY(mutex_) = false;  // since the last begin_flush()
};

}  // namespace rekeyfs::blocks
