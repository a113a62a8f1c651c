// Retirement: makes the kernel give up what it knows an image by, so that every descriptor open on it fails.
//
// Reads that the kernel serves past the daemon cannot be stopped by an answer of ours. But where a name is found to be
// an image of the same number and another generation, the kernel takes the number as used again: "any I/O on the old
// inode should fail" (fs/fuse/inode.c), with EIO. So the image is looked up once under a name made up for that, which
// is answered with its next generation, and with this one from then on.
//
// Another program looks it up, since the daemon itself has to answer. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"

struct fuse_session;

namespace rekeyfs::fs {

class Retirement {
 public:
  void start(fuse_session* session, std::string mountpoint);

  // False if the kernel did not ask: the mount point is covered by another mount, or the session at its end. Takes
  // milliseconds, and not for a thread that serves requests: another one has to serve the child.
  bool retire(Ino image) EXCLUDES(one_at_a_time_, mutex_);

  // What a name has been made up for; none if it has not.
  Ino image_called(Ino parent, std::string_view name) EXCLUDES(mutex_);
  // What every reply about the image has to say.
  std::uint64_t generation_of(Ino image) EXCLUDES(mutex_);

 private:
  fuse_session* session_ = nullptr;
  std::string mountpoint_;
  std::atomic<bool> any_{false};  // most mounts never retire anything
  Mutex one_at_a_time_;           // taken before mutex_
  Mutex mutex_;
  std::unordered_map<Ino, std::uint64_t> generations_ GUARDED_BY(mutex_);
  std::string name_ GUARDED_BY(mutex_);
  Ino image_ GUARDED_BY(mutex_);
  bool asked_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
