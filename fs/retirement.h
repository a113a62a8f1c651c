// Retirement: makes the kernel replace the inode of an image, so that every descriptor open on it fails.
//
// The daemon cannot stop reads that the kernel serves without it. But if a lookup returns the inode number of an image
// with another generation, the kernel considers the number reused: "any I/O on the old inode should fail"
// (fs/fuse/inode.c), with EIO. So the image is looked up once under a made-up name; this reply, and all later ones,
// give it its next generation.
//
// Another program does the lookup, because the daemon has to answer it. Thread-safe.
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

  // False if the kernel did not ask, because another mount covers the mount point or the session is ending. Takes
  // milliseconds. Not for a thread that serves requests: another one has to answer the child.
  bool retire(Ino image) EXCLUDES(one_at_a_time_, mutex_);

  // The image that a made-up name stands for; nullopt for any other name.
  Ino image_called(Ino parent, std::string_view name) EXCLUDES(mutex_);
  // The generation for every reply about the image.
  std::uint64_t generation_of(Ino image) EXCLUDES(mutex_);

 private:
  fuse_session* session_ = nullptr;
  std::string mountpoint_;
  std::atomic<bool> any_{false};  // fast path: most mounts never retire an image
  Mutex one_at_a_time_;           // taken before mutex_
  Mutex mutex_;
  std::unordered_map<Ino, std::uint64_t> generations_ GUARDED_BY(mutex_);
  std::string name_ GUARDED_BY(mutex_);
  Ino image_ GUARDED_BY(mutex_);
  bool asked_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
