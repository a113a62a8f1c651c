// Prefetcher: reads the blocks that an instance will read while it boots, ahead of time.
//
// A prefetch is a read without a waiting reader. Data from a base is stored, as after any read, and all other data ends
// up in the page cache, for all clones that share the blocks. It runs only while no reader is active and copy-on-read
// has nothing left to store, so it slows nothing down; an instance that reads continuously gets no prefetch and needs
// none. Thread-safe; one background thread.
#pragma once

#include <chrono>
#include <deque>
#include <map>

#include "engine/base/background.h"
#include "engine/boot/boot_profiles.h"
#include "engine/replication/copy_on_read.h"
#include "engine/replication/readers.h"

namespace rekeyfs::images {

class Prefetcher {
 public:
  Prefetcher(const replication::Readers& readers, replication::CopyOnRead& copy_on_read);  // both must outlive it
  Status start();
  void stop() { background_.stop(); }

  // Starts prefetching for image `ino`, which was opened and has its content in `layer`. Does nothing if the same
  // profile was prefetched for another image a short time ago.
  void prefetch(Ino ino, const std::shared_ptr<blocks::Layer>& layer, boot::BootProfiles::Found found) EXCLUDES(mutex_);
  void forget(Ino ino) EXCLUDES(mutex_);  // the image was closed

 private:
  using Clock = std::chrono::steady_clock;
  struct Job {
    Ino ino;
    std::shared_ptr<blocks::Layer> layer;
    LayerId profile_of;
    std::deque<boot::Run> left;
    Clock::time_point until;
  };
  Background::Duration step();
  bool has_work() const EXCLUDES(mutex_);
  bool may_work() const;
  // The next range to read, in bytes; nullopt if no job has anything left.
  struct Piece {
    std::shared_ptr<blocks::Layer> layer;
    std::uint64_t offset = 0, size = 0;
  };
  Piece next_piece() EXCLUDES(mutex_);
  Status read(const Piece& piece);

  const replication::Readers& readers_;
  replication::CopyOnRead& copy_on_read_;
  mutable Mutex mutex_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);                          // the first one is active
  // By layer of the profile: time of the last prefetch.
  std::map<LayerId, Clock::time_point> prefetched_ GUARDED_BY(mutex_);
  Background background_;
};

}  // namespace rekeyfs::images
