// Layer: the content of an image as bytes, optionally on top of a base layer.
//
// A thin alignment layer: it splits byte ranges into the blocks of a BlockStore, completes partially written blocks,
// and reads from the base where a block's state says so. A change is in the journal, and so survives a crash of the
// process, when its call returns. Thread-safe: RangeLock serializes changes of the same blocks. Offsets and sizes are
// in bytes unless a name says blocks.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>

#include <sys/types.h>

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

// A range that a layer got from its base during a read and wants to store (copy on read).
struct Taken {
  std::shared_ptr<Layer> layer;
  std::uint64_t offset, size;
};

class Layer final : public formats::Content, public std::enable_shared_from_this<Layer> {
 public:
  struct Parts {
    BlockStore::Parts blocks;
    formats::FormatReaders& format_readers;  // must outlive the layer
  };
  Layer(const Parts& parts, LayerId id, const LayerRecord& record, const LayerTableRecord& table,
        std::unique_ptr<LayerCipher> cipher, std::shared_ptr<const BaseRef> base);
  ~Layer() override;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  LayerId id() const { return id_; }
  const LayerRecord& made_as() const { return record_; }  // its `base` and `owner` may be outdated
  std::uint32_t block_size() const { return grid_.block_size(); }
  // For maintenance only: checkpoints, recovery, checks.
  BlockStore& blocks() { return blocks_; }
  LayerFlush& flush() { return flush_; }
  LayerReplay& replay() { return replay_; }
  std::shared_ptr<Layer> base() const;
  std::uint64_t size() const override { return blocks_.size(); }
  std::uint64_t stored() const { return blocks_.stored(); }

  // Whether other layers or copies read from this layer. While they do, its content must not change.
  bool is_shared() const { return sharing_.is_shared(); }
  Sharing& sharing() { return sharing_; }

  // Errc::key_revoked or Errc::no_key while the content, including holes, must not be read or changed.
  Status may_use_key() const { return blocks_.cipher().may_use_key(); }
  void forget_key() { blocks_.cipher().forget_key(); }

  Status read(std::uint64_t offset, ByteSpan out) override { return read(offset, out, nullptr); }
  // Appends to `taken`, if not null, each range that this layer or one below it got from its base and wants to store.
  Status read(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken);
  // Bytes from `offset` on that read as zero, through all bases.
  Result<std::uint64_t> zeros_at(std::uint64_t offset) override;
  // The first offset at or after `offset` that is not known (find_hole: is known) to read as zero; the size if there is
  // none.
  Result<std::uint64_t> find_data(std::uint64_t offset);
  Result<std::uint64_t> find_hole(std::uint64_t offset);

  Status write(std::uint64_t offset, ByteView bytes, const Touch& touch);
  Status resize(std::uint64_t size, const Touch& touch);
  Status grow(std::uint64_t size, const Touch& touch);  // no-op if a concurrent write has grown it already
  Status zero(std::uint64_t offset, std::uint64_t size, const Touch& touch);  // the range must lie within the size
  // Allocates space for the blocks of [offset, offset + size), which may exceed the content, so that writing them
  // cannot fail with ENOSPC. The space is kept until they are written, released or truncated. Errc::no_space if there
  // is not enough.
  Status promise(std::uint64_t offset, std::uint64_t size);
  Status release(std::uint64_t offset, std::uint64_t size);
  // Upper bound of what writing the range adds to stored(). With `beyond_promised`, space that is allocated already is
  // left out, which asks the file system.
  Result<std::uint64_t> growth_by(std::uint64_t offset, std::uint64_t size, bool beyond_promised);
  // Grows the content to `size` bytes; the new part reads as the base. Neither the old nor the new size needs block
  // alignment.
  Status extend_over_base(std::uint64_t size, const Touch& touch);
  // Sets all whole blocks in [offset, offset + size) to state "base".
  Status take_from_base(std::uint64_t offset, std::uint64_t size, const Touch& touch);

  // One step of making the layer independent of its base: handles up to `most` blocks from `first` on. Returns the
  // number of blocks handled, including holes and blocks with data; 0 at the end.
  Result<std::uint64_t> fill(BlockIndex first, std::uint64_t most);
  // Whether data that readers get from the base is stored here: true for a replica, false for a clone.
  void keep_reads(bool keep) { keeps_reads_.store(keep); }
  bool keeps_reads() const { return keeps_reads_.load(); }
  // For whom the disk in the base is read; users take turns.
  void set_asker(uid_t asker) { asker_.store(asker, std::memory_order_relaxed); }
  // Stores data that a reader got from the base into those blocks that are still in state "base".
  Status keep(std::uint64_t offset, ByteView plain);
  BlockIndex filled() const { return blocks_.filled(); }  // where the filler continues
  void set_filled(BlockIndex next) { blocks_.set_filled(next); }
  // The layer was deleted: further changes fail with Errc::stale.
  void retire() { blocks_.retire(); }
  // True while every block is in state "base": the layer was made by a copy and never written.
  bool is_all_base() const;
  // Releases the base. The caller has made all blocks durable and recorded that the layer stands alone.
  void drop_base();

 private:
  BlockIndex block_of(std::uint64_t offset) const { return grid_.block_of(offset); }
  std::uint64_t offset_of(BlockIndex block) const { return grid_.offset_of(block); }
  BlockIndex end_block(std::uint64_t size) const { return grid_.end_block(size); }

  Error lost(BlockIndex index) const;
  // The source of blocks in state "base".
  struct Below {
    std::shared_ptr<const BaseRef> base;     // shared with readers, so that it stays valid for them after drop_base()
    std::shared_ptr<formats::Content> disk;  // the disk inside the base, if the layer reads through a format
    formats::Content* content() const { return disk ? disk.get() : base->layer().get(); }
  };
  Below below() const;
  Result<Below> below_for(BlockIndex index);
  // A part of a read that continues in a lower layer.
  struct Piece {
    std::shared_ptr<const BaseRef> base;
    std::uint64_t offset;
    ByteSpan out;
    std::vector<Taken>* taken;
  };
  Status read_here(std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken, std::vector<Piece>& left);
  Status read_below(const Below& below, std::uint64_t offset, ByteSpan out, std::vector<Taken>* taken, std::vector<Piece>& left);
  struct Zeros {
    std::uint64_t bytes;  // number of bytes that read as zero if `below` reads as zero, too; 0 for data
    Below below;          // empty if this layer alone decides
  };
  Result<Zeros> zeros_here(std::uint64_t offset);
  std::pair<RangeLock::Held, std::uint64_t> acquire_with_tail(BlockIndex first, BlockIndex end);
  // The caller holds the range lock for all of these.
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
  std::atomic<uid_t> asker_{0};

  mutable SharedMutex below_mutex_;
  Below below_ GUARDED_BY(below_mutex_);
};

}  // namespace rekeyfs::blocks
