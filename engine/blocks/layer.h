// Layer: the content of an image as blocks, sealed with one data key, over a base layer or none.
//
// Every change is in the journal, and so survives the process, when its call returns. Thread-safe: changes of
// the same blocks exclude each other (RangeLock); one change at a time is recorded and taken into the table (changing_); the
// table and the size are under mutex_. Sealing, opening, file I/O and the journal's append run outside mutex_, so readers wait
// for none of them. Offsets and sizes are bytes unless a name says blocks.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <set>

#include "engine/base/mutex.h"
#include "engine/blocks/base_ref.h"
#include "engine/blocks/block_table.h"
#include "engine/blocks/layer_cipher.h"
#include "engine/blocks/layer_record.h"
#include "engine/blocks/limbo.h"
#include "engine/blocks/range_lock.h"
#include "engine/blocks/sharing.h"
#include "engine/blocks/slot_files.h"
#include "engine/blocks/touch.h"
#include "engine/catalog/catalog.h"
#include "engine/formats/content.h"
#include "engine/formats/format_readers.h"

namespace rekeyfs::blocks {

class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  // A layer changes for the first time since its last flush. Called with the layer's lock held.
  virtual void layer_changed(LayerId layer) = 0;
  // A change that means something to an inode is about to be recorded in the transaction.
  virtual Status touch(catalog::WriteTxn& txn, const Touch& touch) = 0;
};

class Layer;

// What a layer got from below itself for a reader, and wants to keep.
struct Taken {
  std::shared_ptr<Layer> layer;
  std::uint64_t offset, size;
};

class Layer final : public formats::Content, public std::enable_shared_from_this<Layer> {
 public:
  struct Parts {  // what a layer works with; all outlive it
    io::Storage& storage;
    catalog::Catalog& catalog;
    const crypto::Mac& table_mac;
    PageBudget& budget;
    LayerObserver& observer;
    formats::FormatReaders& format_readers;
  };
  Layer(const Parts& parts, LayerId id, const LayerRecord& record, const LayerTableRecord& table,
        std::unique_ptr<LayerCipher> cipher, std::shared_ptr<const BaseRef> base);
  ~Layer() override;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  LayerId id() const { return id_; }
  const LayerRecord& made_as() const { return record_; }  // `base` and `owner` of it may be out of date
  std::uint32_t block_size() const { return block_size_; }
  std::shared_ptr<Layer> base() const;
  std::uint64_t size() const override;
  std::uint64_t stored() const;

  // Whether others read from it: while they do, its content must not change.
  bool is_shared() const { return sharing_.is_shared(); }
  Sharing& sharing() { return sharing_; }

  // Errc::key_revoked or Errc::no_key while the content, holes too, must not be read or changed.
  Status may_use_key() const { return cipher_->may_use_key(); }
  void forget_key() const { cipher_->forget_key(); }

  Status read(std::uint64_t offset, ByteSpan out) override { return read(offset, out, nullptr); }
  // `taken`, if given, gets what this layer or one below it got from its base and wants to keep.
  Status read(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken);
  // Seen through all bases.
  Result<std::uint64_t> zeros_at(std::uint64_t offset) override;
  // The first offset at or after `offset`, below the size, that is (not) known to read zero; the size if none.
  Result<std::uint64_t> find_data(std::uint64_t offset);
  Result<std::uint64_t> find_hole(std::uint64_t offset);

  Status write(std::uint64_t offset, ByteView bytes, const Touch& touch);
  Status resize(std::uint64_t size, const Touch& touch);
  Status zero(std::uint64_t offset, std::uint64_t size, const Touch& touch);  // within the size
  // The content goes on as the base's, up to `size`, which a block border or the current size need not be.
  Status extend_over_base(std::uint64_t size, const Touch& touch);
  // Whole blocks of [offset, offset + size) become "from base".
  Status take_from_base(std::uint64_t offset, std::uint64_t size, const Touch& touch);

  // One step of making the layer independent of its base: up to `most` blocks from `first` on. How many blocks were
  // done (holes and blocks it has already count); 0 at the end.
  Result<std::uint64_t> fill(BlockIndex first, std::uint64_t most);
  // Whether what readers get from the base is to be kept (a replica, not a clone).
  void keep_reads(bool keep) { keeps_reads_.store(keep); }
  bool keeps_reads() const { return keeps_reads_.load(); }
  // Stores what a reader got from the base, where the entries still say so.
  Status keep(std::uint64_t offset, ByteView plain);
  std::uint64_t filled() const;        // blocks; where the filler goes on
  Status set_filled(BlockIndex next);
  // Deleted: further changes answer Errc::stale.
  void retire() { retired_.store(true); }
  // True while every block is the base's: a layer made by a copy and never written.
  bool is_all_base() const;
  // The base is not needed any more (the caller has made everything durable and recorded it).
  void drop_base();

  Status sync_data() { return files_.sync(); }
  bool needs_sync() const { return files_.needs_sync(); }

  // Checkpoint, by one thread: begin under the lock, write without it, end when the catalog has committed.
  struct Flush {
    std::vector<BlockTable::PageWrite> pages;
    std::string table_record;
  };
  Result<Flush> begin_flush() EXCLUDES(changing_, mutex_);
  Status write_flush(const Flush& flush);
  Status sync_table();
  // Gives slots back that no recovery from `first_segment` on can need.
  void end_flush(bool committed, catalog::SegmentNumber first_segment);
  // What waits for a checkpoint.
  struct Pressure {
    std::size_t dirty_pages = 0;
    std::uint64_t limbo_slots = 0;
  };
  Pressure pressure() const;

  // Checking: what a block's entry says, and where its table cannot be read any more (BlockTable::mark_lost()).
  Result<BlockTable::Run> find(BlockIndex index);
  Status mark_lost(const BlockTable::Lost& lost);

  // Recovery: whether every block of a change found in the journal opens, as far as its key can be had. What cannot be
  // read now may be there all the same: that is an error.
  Result<bool> verifies(const LayerChange& change);
  // Recovery: applies a change found in the journal. With `verify`, entries whose slot does not open are left out;
  // whether nothing was. `gives_up` says of an error of a read that it stands for a block that does not open.
  using GivesUp = bool (*)(const Error& error);
  Result<bool> replay(const LayerChange& change, catalog::SegmentNumber segment, bool verify, GivesUp gives_up);

 private:
  using Opens = std::function<Result<bool>(const LayerChange&)>;
  Result<bool> replay_in_part(const LayerChange& change, catalog::SegmentNumber segment, const Opens& opens);
  // Whether the block that content of this size ends in holds nothing but zeros behind it.
  Result<bool> is_zero_behind(std::uint64_t size);
  BlockIndex block_of(std::uint64_t offset) const { return offset >> record_.block_shift; }
  std::uint64_t offset_of(BlockIndex block) const { return block << record_.block_shift; }
  // An entry that says more than a block can hold does not verify.
  std::size_t stored_size(const BlockEntry& entry) const { return std::min(entry.stored_length, block_size_); }
  BlockIndex end_block(std::uint64_t size) const { return (size + block_size_ - 1) >> record_.block_shift; }

  Result<std::vector<BlockTable::Run>> runs_of(BlockIndex first, BlockIndex end);
  Status read_data(BlockIndex first, const std::vector<BlockEntry>& entries, std::uint64_t offset, ByteSpan out);
  Status read_one(BlockIndex index, BlockEntry entry, std::uint64_t offset, ByteSpan out);
  Error lost(BlockIndex index) const;
  // What is read where entries say "from base".
  struct Below {
    std::shared_ptr<const BaseRef> base;     // held by readers, too: it does not change under them when the layer lets go of it
    std::shared_ptr<formats::Content> disk;  // inside the base, if that is what is read
    formats::Content* content() const { return disk ? disk.get() : base->layer().get(); }
  };
  Below below() const;
  Result<Below> below_for(BlockIndex index);
  // What of a read is left to a layer further down.
  struct Piece {
    std::shared_ptr<const BaseRef> base;
    std::uint64_t offset;
    ByteSpan out;
    std::vector<Taken>* taken;
  };
  Status read_here(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken, std::vector<Piece>& left);
  Status read_below(const Below& below, std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken, std::vector<Piece>& left);
  struct Zeros {
    std::uint64_t bytes;  // that read zero if what is below does, too; 0 for data
    Below below;          // none if this layer knows
  };
  Result<Zeros> zeros_here(std::uint64_t offset);
  std::pair<RangeLock::Held, std::uint64_t> acquire_with_tail(BlockIndex first, BlockIndex end);
  void wait_for_relief() EXCLUDES(mutex_);
  // All with the range lock held.
  Status write_held(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, const Touch& touch);
  Status store_bytes(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, std::vector<BlockEntry>& entries);
  Result<std::vector<BlockEntry>> store(BlockIndex first, ByteView plain);
  Status write_slots(const std::vector<BlockEntry>& entries, ByteView sealed);
  Status prepare_extension(std::uint64_t old_size, std::uint64_t offset);
  Status zero_tail(std::uint64_t size);
  // Gives each entry of a block with data a free slot.
  Status choose_slots(BlockIndex first, std::vector<BlockEntry>& entries) EXCLUDES(mutex_);
  Result<Slot> choose_slot(BlockIndex index) REQUIRES(mutex_);
  // The change was not recorded: nobody will ever look into its slots.
  void abandon(const std::vector<BlockEntry>& entries) REQUIRES(mutex_);
  // Decides which slots that nobody needs any more stay allocated; the others, still in limbo, are to be punched.
  std::vector<SlotRun> retain_some(catalog::SegmentNumber first_segment) REQUIRES(mutex_);
  Status commit(LayerChange change, bool may_grow, const Touch& touch) EXCLUDES(changing_, mutex_);
  Status prepare_change() REQUIRES(changing_) EXCLUDES(mutex_);
  Result<catalog::SegmentNumber> record(const LayerChange& change, const Touch& touch) REQUIRES(changing_) EXCLUDES(mutex_);
  Status apply(const LayerChange& change, catalog::SegmentNumber segment) REQUIRES(mutex_);
  Status apply_entry(BlockIndex index, const BlockEntry& entry, catalog::SegmentNumber segment) REQUIRES(mutex_);
  // Finishes a change that is on record and was not applied to the end. Before any other.
  Status catch_up() REQUIRES(mutex_);
  void drop_entry(const BlockEntry& entry, catalog::SegmentNumber segment) REQUIRES(mutex_);
  void mark_changed() REQUIRES(mutex_);
  Result<std::unique_ptr<io::File>> open_table_file(bool create);

  const LayerId id_;
  const LayerRecord record_;
  const std::uint32_t block_size_;
  io::Storage& storage_;
  catalog::Catalog& catalog_;
  LayerObserver& observer_;
  const std::unique_ptr<LayerCipher> cipher_;
  SlotFiles files_;
  RangeLock ranges_;
  Sharing sharing_;
  std::atomic<bool> retired_{false};
  std::atomic<bool> keeps_reads_{false};
  std::atomic<bool> table_is_new_{false};  // the name of its file is not durable

  // Held from before a change is recorded until it is in the table: so the order in the journal is the order in the table,
  // and no flush comes between the two. Before mutex_.
  Mutex changing_;
  mutable SharedMutex mutex_;
  Below below_ GUARDED_BY(mutex_);
  BlockTable table_ GUARDED_BY(mutex_);
  std::uint64_t size_ GUARDED_BY(mutex_);
  std::uint64_t stored_ GUARDED_BY(mutex_);
  std::uint64_t filled_ GUARDED_BY(mutex_);
  std::uint64_t next_spill_ GUARDED_BY(mutex_);
  // Slots that hold nothing: in limbo, then idle (still allocated, so that writing them again costs the file system
  // nothing) or punched. Of the punched ones only spill slots are remembered: a home slot is its block's anyway.
  Limbo limbo_ GUARDED_BY(mutex_);
  std::uint64_t being_punched_ GUARDED_BY(mutex_) = 0;  // of those in limbo
  std::set<Slot> idle_ GUARDED_BY(mutex_);
  bool may_idle_ GUARDED_BY(mutex_) = false;  // not in recovery, after which layers are closed
  FreeSlots punched_spill_ GUARDED_BY(mutex_);
  bool changed_ GUARDED_BY(mutex_) = false;  // since the last begin_flush()
  struct Recorded {
    LayerChange change;
    catalog::SegmentNumber segment;
    bool is_retried = false;
  };
  // In the journal, and not wholly in the table, although its commit has ended. Set with changing_ held as well.
  std::optional<Recorded> unapplied_ GUARDED_BY(mutex_);
  bool left_out_ = false;  // recovery, which is single-threaded: of the changes so far, something was

  Mutex relief_;  // guards nothing: for relieved_
  CondVar relieved_;
};

}  // namespace rekeyfs::blocks
