// Layer: the content of an image as bytes, over a base layer or none.
//
// A thin layer that aligns: it cuts bytes into the blocks of a BlockStore, completes blocks that are written in part, and reads
// from the base where the state of a block says so. Every change is in the journal, and so survives the process, when its call
// returns. Thread-safe: changes of the same blocks exclude each other (RangeLock). Offsets and sizes are bytes unless a name
// says blocks.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/blocks/base_ref.h"
#include "engine/blocks/block_store.h"
#include "engine/blocks/layer_flush.h"
#include "engine/blocks/layer_replay.h"
#include "engine/blocks/range_lock.h"
#include "engine/blocks/sharing.h"
#include "engine/formats/content.h"
#include "engine/formats/format_readers.h"

namespace rekeyfs::blocks {

class Layer;

// What a layer got from below itself for a reader, and wants to keep.
struct Taken {
  std::shared_ptr<Layer> layer;
  std::uint64_t offset, size;
};

class Layer final : public formats::Content, public std::enable_shared_from_this<Layer> {
 public:
  struct Parts {
    BlockStore::Parts blocks;
    formats::FormatReaders& format_readers;  // outlives it
  };
  Layer(const Parts& parts, LayerId id, const LayerRecord& record, const LayerTableRecord& table,
        std::unique_ptr<LayerCipher> cipher, std::shared_ptr<const BaseRef> base);
  ~Layer() override;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  LayerId id() const { return id_; }
  const LayerRecord& made_as() const { return record_; }  // `base` and `owner` of it may be out of date
  std::uint32_t block_size() const { return grid_.block_size(); }
  // For those who keep it in order: checkpoints, recovery, checks.
  BlockStore& blocks() { return blocks_; }
  LayerFlush& flush() { return flush_; }
  LayerReplay& replay() { return replay_; }
  std::shared_ptr<Layer> base() const;
  std::uint64_t size() const override { return blocks_.size(); }
  std::uint64_t stored() const { return blocks_.stored(); }

  // Whether others read from it: while they do, its content must not change.
  bool is_shared() const { return sharing_.is_shared(); }
  Sharing& sharing() { return sharing_; }

  // Errc::key_revoked or Errc::no_key while the content, holes too, must not be read or changed.
  Status may_use_key() const { return blocks_.cipher().may_use_key(); }
  void forget_key() { blocks_.cipher().forget_key(); }

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
  // Keeps space for the blocks of [offset, offset + size), which may lie beyond the content, until they are written, released
  // or cut off: writing them does not fail for want of it. Errc::no_space if there is not enough.
  Status promise(std::uint64_t offset, std::uint64_t size);
  Status release(std::uint64_t offset, std::uint64_t size);
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
  BlockIndex filled() const { return blocks_.filled(); }  // where the filler goes on
  void set_filled(BlockIndex next) { blocks_.set_filled(next); }
  // Deleted: further changes answer Errc::stale.
  void retire() { blocks_.retire(); }
  // True while every block is the base's: a layer made by a copy and never written.
  bool is_all_base() const;
  // The base is not needed any more (the caller has made everything durable and recorded it).
  void drop_base();

 private:
  BlockIndex block_of(std::uint64_t offset) const { return grid_.block_of(offset); }
  std::uint64_t offset_of(BlockIndex block) const { return grid_.offset_of(block); }
  BlockIndex end_block(std::uint64_t size) const { return grid_.end_block(size); }

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
  // All with the range lock held.
  Status write_held(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, const Touch& touch);
  Status store_bytes(std::uint64_t offset, ByteView bytes, std::uint64_t old_size, std::vector<BlockEntry>& entries);
  Status prepare_extension(std::uint64_t old_size, std::uint64_t offset);
  Status zero_tail(std::uint64_t size);

  const LayerId id_;
  const LayerRecord record_;
  const BlockGrid grid_;
  BlockStore blocks_;
  LayerFlush flush_;
  LayerReplay replay_;
  RangeLock ranges_;
  Sharing sharing_;
  std::atomic<bool> keeps_reads_{false};

  mutable SharedMutex below_mutex_;
  Below below_ GUARDED_BY(below_mutex_);
};

}  // namespace rekeyfs::blocks
