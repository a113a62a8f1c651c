// CopyOnRead: stores what readers of a replicating image got from its base, behind their backs.
//
// Bounded: when the queue is full, a read is served and not kept; the filler comes by later. Thread-safe.
#pragma once

#include <deque>
#include <thread>

#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

class CopyOnRead {
 public:
  ~CopyOnRead() { stop(); }
  void start();
  void stop();  // what is queued is dropped
  // `bytes` is what the layer reads at `offset`; copied if there is room.
  void offer(const std::shared_ptr<blocks::Layer>& layer, std::uint64_t offset, ByteView bytes);

 private:
  struct Kept {
    std::shared_ptr<blocks::Layer> layer;
    std::uint64_t offset;
    std::vector<std::byte> bytes;
  };
  void loop();

  Mutex mutex_;
  CondVar changed_;
  std::deque<Kept> queue_ GUARDED_BY(mutex_);
  std::size_t queued_bytes_ GUARDED_BY(mutex_) = 0;
  bool running_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace rekeyfs::replication
