// CopyOnRead: stores data that readers of a replicating image got from its base, in the background.
//
// The queue is bounded: when it is full, a read is served without storing its data, which the filler copies later.
// Thread-safe; one background thread.
#pragma once

#include <deque>

#include "engine/base/background.h"
#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

class CopyOnRead {
 public:
  Status start();
  void stop();  // drops queued work
  // `bytes` is the result of a read at `offset`. Copies the parts that layers want to store into the queue, if there is
  // room.
  void offer(const std::vector<blocks::Taken>& taken, std::uint64_t offset, ByteView bytes);
  bool is_idle() const EXCLUDES(mutex_);  // the queue is empty

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
