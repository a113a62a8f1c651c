// FillJob: the state of filling one layer: which blocks a worker gets next, and how much is done.
//
// Blocks are handed out in pieces: first those in the boot profile, then all others in ascending order. Guarded by the
// filler's lock; const members may be read without it.
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
  std::uint64_t done = 0, total = 0;  // in bytes
  double rate = 0;                    // bytes per second since the job was taken up
  std::string error;
  double percent() const;  // at most 99.9: only a completed job has 100
};

struct FillJob {
  using Clock = std::chrono::steady_clock;
  struct Piece {
    BlockIndex first = 0, end = 0;
    bool is_in_order = true;  // false: from the boot profile
  };

  FillJob(Ino image, std::shared_ptr<blocks::Layer> filled, uid_t user, std::string why, std::deque<Piece> boot_pieces);

  BlockIndex end() const { return (layer->size() + layer->block_size() - 1) / layer->block_size(); }
  bool has_pieces() const { return next < end(); }
  Piece take_piece();
  // Called when a worker has finished the piece up to `reached`, or has failed.
  void give_back(const Piece& piece, BlockIndex reached, bool succeeded);
  BlockIndex filled() const;  // no block before this one needs work
  Progress progress() const;

  Ino ino;  // image that becomes normal at the end; none if the image continues without the layer
  const std::shared_ptr<blocks::Layer> layer;
  const uid_t asker;  // user who asked for the replication
  bool held;          // more pieces of the image may still be copied
  bool busy = false;  // one worker has the whole job: to find space for it or to finish it
  std::deque<Piece> boot;             // boot profile pieces not handed out yet
  BlockIndex next;                    // in ascending order, blocks from here on were not handed out yet
  std::multiset<BlockIndex> in_hand;  // first blocks of the pieces that workers have now
  std::string error;
  BlockIndex failed_at = 0;  // block that failed; the error lasts until this block is done, regardless of other blocks
  bool has_failed = false;   // failed at least once, so its duration says nothing about this machine's speed
  const Clock::time_point begun = Clock::now();
  const std::uint64_t done_before;    // in bytes, when the job was taken up
  const std::uint64_t stored_before;  // bytes that the layer itself stored at that time
};

}  // namespace rekeyfs::replication
