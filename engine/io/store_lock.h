// StoreLock: ensures that only one process has a store open.
//
// An open-file-description lock on STORE/lock. The kernel releases it with the last descriptor, also after kill -9. A
// child that inherits the descriptor keeps the lock: the descriptor is close-on-exec, and a child without exec must
// close it. The file is never removed, because another process may just have opened it. It names the holder, for the
// error message of a second process. Not thread-safe; movable.
#pragma once

#include <string>

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::io {

class StoreLock {
 public:
  // Errc::locked names the process that holds the lock; Errc::not_found if the directory does not exist. If the named
  // process is dead but a child of it still has the lock, waits up to one second.
  static Result<StoreLock> acquire(const std::string& store_directory);

 private:
  explicit StoreLock(Descriptor fd) : fd_(std::move(fd)) {}
  Descriptor fd_;
};

}  // namespace rekeyfs::io
