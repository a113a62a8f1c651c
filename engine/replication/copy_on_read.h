// CopyOnRead: stores what readers of a replicating image got from its base, behind their backs.
//
// Bounded: when the queue is full, a read is served and not kept; the filler comes by later. Thread-safe; one
// background thread.
#pragma once

#include <deque>

#include "engine/base/background.h"
#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

class CopyOnRead {
 public:
  Status start();
  void stop();  // what is queued is dropped
  // `bytes` is what was read at `offset`; the parts of it that layers want to keep are copied if there is room.
  void offer(const std::vector<blocks::Taken>& taken, std::uint64_t offset, ByteView bytes);
  bool is_idle() const EXCLUDES(mutex_);  // nothing is queued

 private:
  struct Kept {
    std::shared_ptr<blocks::Layer> layer;
    std::uint64_t offset;
    std::vector<std::byte> bytes;
  };
  Background::Duration step();
  void offer(const std::shared_ptr<blocks::Layer>& layer, std::uint64_t offset, ByteView bytes) EXCLUDES(mutex_);
  bool has_room_for(std::size_t bytes) const REQUIRES(mutex_);

  mutable Mutex mutex_;
  std::deque<Kept> queue_ GUARDED_BY(mutex_);
  std::size_t queued_bytes_ GUARDED_BY(mutex_) = 0;
  Background background_{"copy-on-read"};
};

}  // namespace rekeyfs::replication
