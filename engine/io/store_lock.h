// StoreLock: a store is open in one process at a time.
//
// An open-file-description lock on STORE/lock: the kernel frees it when the last descriptor of it goes, so also
// after kill -9. A child that inherits the descriptor keeps the lock alive (the descriptor is close-on-exec; a
// child that does not exec must close it). The file is never removed, as another process might just have opened
// it. It names the holder, for the message that a second process gets. Not thread-safe; an owner moves it.
#pragma once

#include <string>

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::io {

class StoreLock {
 public:
  // Errc::locked names the process that holds it; Errc::not_found if there is no such directory. Where the holder is
  // dead and a child of it has the lock still, waits for at most a second.
  static Result<StoreLock> acquire(const std::string& store_directory);

 private:
  explicit StoreLock(Descriptor fd) : fd_(std::move(fd)) {}
  Descriptor fd_;
};

}  // namespace rekeyfs::io
