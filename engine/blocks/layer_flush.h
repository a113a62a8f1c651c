// LayerFlush: writes a layer's table as part of a checkpoint, and frees the space that is superfluous afterwards.
//
// The checkpointer calls from one thread: begin(), write(), the syncs, and finally end(), when the catalog has
// committed the table record or failed to. Writers wait here when they supersede slots faster than checkpoints free
// them. Otherwise thread-safe.
#pragma once

#include "engine/blocks/block_store.h"

namespace rekeyfs::blocks {

class LayerFlush {
 public:
  explicit LayerFlush(BlockStore& blocks) : blocks_(blocks) {}  // must outlive the LayerFlush

  struct Work {
    std::vector<BlockTable::PageWrite> pages;
    std::string table_record;
  };
  Result<Work> begin();
  Status write(const Work& work) { return blocks_.write_pages(work.pages); }
  Status sync_table() { return blocks_.sync_table(); }
  // Frees slots that recovery from `first_segment` on cannot need.
  void end(bool committed, catalog::SegmentNumber first_segment);

  // Throttles writers: small writes supersede slots faster than a disk syncs their successors. Waits for the flush in
  // progress.
  void wait_for_relief();

 private:
  BlockStore& blocks_;
  Mutex relief_;  // guards no data, only used to wait on relieved_
  CondVar relieved_;
};

}  // namespace rekeyfs::blocks
