// LayerReplay: applies a layer's changes from the journal to its blocks. For recovery only, which is single-threaded.
#pragma once

#include "engine/blocks/block_store.h"

namespace rekeyfs::blocks {

class LayerReplay {
 public:
  explicit LayerReplay(BlockStore& blocks) : blocks_(blocks) {}  // must outlive the LayerReplay

  // Whether every block of a change decrypts, as far as its key is available. A block that cannot be read now may still
  // exist, so that is an error.
  Result<bool> verifies(const LayerChange& change);
  // Applies a change. With `verify`, entries whose slot does not decrypt are skipped; returns false if any was.
  // `gives_up` decides whether a read error counts as a block that does not decrypt.
  using GivesUp = bool (*)(const Error& error);
  Result<bool> replay(const LayerChange& change, catalog::SegmentNumber segment, bool verify, GivesUp gives_up);

 private:
  using Opens = std::function<Result<bool>(const LayerChange&)>;
  Result<bool> replay_in_part(const LayerChange& change, catalog::SegmentNumber segment, const Opens& opens);

  BlockStore& blocks_;
  bool left_out_ = false;  // an entry was skipped in this or an earlier change
};

}  // namespace rekeyfs::blocks
