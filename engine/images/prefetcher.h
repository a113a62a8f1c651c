// Prefetcher: reads what an instance is going to read when it boots, before it does.
//
// A prefetch is a read that nobody waits for: what it gets from a base is kept, as any reader's is, and the rest is in
// the operating system's memory afterwards, for all clones that share the blocks. It works only in moments in which
// nobody reads from an image and what readers got has been stored: so it slows nobody down, and an instance that reads
// all the time gets no help, for it needs none. Thread-safe; one background thread.
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
  Prefetcher(const replication::Readers& readers, replication::CopyOnRead& copy_on_read);  // both outlive it
  Status start();
  void stop() { background_.stop(); }

  // For the image `ino`, which has been opened and has its content in `layer`. Nothing happens if the same profile was
  // prefetched a short time ago, for another one.
  void prefetch(Ino ino, const std::shared_ptr<blocks::Layer>& layer, boot::BootProfiles::Found found) EXCLUDES(mutex_);
  void forget(Ino ino) EXCLUDES(mutex_);  // closed

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
  // What to read next, in bytes; nothing if no job has anything left.
  struct Piece {
    std::shared_ptr<blocks::Layer> layer;
    std::uint64_t offset = 0, size = 0;
  };
  Piece next_piece() EXCLUDES(mutex_);
  Status read(const Piece& piece);

  const replication::Readers& readers_;
  replication::CopyOnRead& copy_on_read_;
  mutable Mutex mutex_;
  std::deque<Job> jobs_ GUARDED_BY(mutex_);                          // the first is at work
  std::map<LayerId, Clock::time_point> prefetched_ GUARDED_BY(mutex_);  // whose profile, when
  Background background_;
};

}  // namespace rekeyfs::images
