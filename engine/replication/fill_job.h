// FillJob: one layer that is being filled: which of its blocks are a worker's next, and how far it is.
//
// Its blocks are given out in pieces: first those that its boot profile names, then the others in the image's order. The
// filler's lock guards it; what is constant may be read without.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <string>

#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

struct Progress {
  Ino ino;
  std::uint64_t done = 0, total = 0;  // bytes
  double rate = 0;                    // bytes a second since the job was taken up
  std::string error;
  double percent() const;  // 99.9 at most: 100 is for what is complete
};

struct FillJob {
  using Clock = std::chrono::steady_clock;
  struct Piece {
    BlockIndex first = 0, end = 0;
    bool is_in_order = true;  // else of the boot profile
  };

  FillJob(Ino image, std::shared_ptr<blocks::Layer> filled, bool is_held, std::string why, std::deque<Piece> boot_pieces);

  BlockIndex end() const { return (layer->size() + layer->block_size() - 1) / layer->block_size(); }
  bool has_pieces() const { return next < end(); }
  Piece take_piece();
  // A worker is done with the piece, up to `reached`, or has failed.
  void give_back(const Piece& piece, BlockIndex reached, bool succeeded);
  BlockIndex filled() const;  // blocks before this one need nothing any more
  Progress progress() const;

  Ino ino;  // the image it makes normal; none if that has gone on without the layer
  const std::shared_ptr<blocks::Layer> layer;
  bool held;          // more of the image is still being copied
  bool busy = false;  // one worker has all of it: to find room for it, or to finish it
  std::deque<Piece> boot;             // those nobody has been given
  BlockIndex next;                    // and in the image's order nobody has been given blocks from here on
  std::multiset<BlockIndex> in_hand;  // first blocks of what workers are at
  std::string error;
  BlockIndex failed_at = 0;  // with an error, which is over when this block is done, whatever others do meanwhile
  bool has_failed = false;   // once: the time it took says nothing about this machine
  const Clock::time_point begun = Clock::now();
  const std::uint64_t done_before;    // bytes, when the job was taken up
  const std::uint64_t stored_before;  // bytes the layer held itself then
};

}  // namespace rekeyfs::replication
