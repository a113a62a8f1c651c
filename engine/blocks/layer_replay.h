// LayerReplay: plays changes of a layer that the journal has back into its blocks. Recovery's, which is single-threaded.
#pragma once

#include "engine/blocks/block_store.h"

namespace rekeyfs::blocks {

class LayerReplay {
 public:
  explicit LayerReplay(BlockStore& blocks) : blocks_(blocks) {}  // outlives it

  // Whether every block of a change opens, as far as its key can be had. What cannot be read now may be there all the same:
  // that is an error.
  Result<bool> verifies(const LayerChange& change);
  // Applies a change. With `verify`, entries whose slot does not open are left out; whether nothing was. `gives_up` says of
  // an error of a read that it stands for a block that does not open.
  using GivesUp = bool (*)(const Error& error);
  Result<bool> replay(const LayerChange& change, catalog::SegmentNumber segment, bool verify, GivesUp gives_up);

 private:
  using Opens = std::function<Result<bool>(const LayerChange&)>;
  Result<bool> replay_in_part(const LayerChange& change, catalog::SegmentNumber segment, const Opens& opens);

  BlockStore& blocks_;
  bool left_out_ = false;  // of the changes so far, something was
};

}  // namespace rekeyfs::blocks
