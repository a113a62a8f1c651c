// LayerFlush: brings a layer's table up to date with the journal, as part of a checkpoint, and gives back what nothing needs
// after it.
//
// The checkpointer calls, in one thread: begin(), write(), the syncs, and, when the catalog has committed the record or failed
// to, end(). Writers wait here when they supersede slots faster than flushes end. Thread-safe but for that order.
#pragma once

#include "engine/blocks/block_store.h"

namespace rekeyfs::blocks {

class LayerFlush {
 public:
  explicit LayerFlush(BlockStore& blocks) : blocks_(blocks) {}  // outlives it

  struct Work {
    std::vector<BlockTable::PageWrite> pages;
    std::string table_record;
  };
  Result<Work> begin();
  Status write(const Work& work) { return blocks_.write_pages(work.pages); }
  Status sync_table() { return blocks_.sync_table(); }
  // Gives slots back that no recovery from `first_segment` on can need.
  void end(bool committed, catalog::SegmentNumber first_segment);

  // Small writes supersede slots faster than a disk makes their successors durable: a writer waits for the flush under way.
  void wait_for_relief();

 private:
  BlockStore& blocks_;
  Mutex relief_;  // guards nothing: for relieved_
  CondVar relieved_;
};

}  // namespace rekeyfs::blocks
