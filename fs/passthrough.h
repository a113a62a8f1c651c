// Passthrough: an open file whose reads and mappings the kernel serves from a backing file, without the daemon.
// Implements what libfuse 3.14 lacks; Device negotiates the feature.
//
// The kernel's rules: while an image is open this way, every other open of it must be answered this way, with the same
// backing file; and it must not be opened this way while it is open in the usual way. Breaking a rule makes the user's
// open fail with EIO.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/base/result.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// A file registered in the kernel under a number, to be read instead of an image. Files opened with that number stay
// open after the registration ends.
class BackingFile {
 public:
  // `device` is the session's descriptor, which must outlive this object. Needs CAP_SYS_ADMIN.
  static Result<BackingFile> create(int device, int descriptor);
  BackingFile(BackingFile&& other) noexcept : device_(other.device_), number_(std::exchange(other.number_, 0)) {}
  BackingFile& operator=(BackingFile&&) = delete;
  ~BackingFile();

  std::int32_t number() const { return number_; }

 private:
  BackingFile(int device, std::int32_t number) : device_(device), number_(number) {}
  const int device_;
  std::int32_t number_;  // 0: not registered
};

// Like fuse_reply_open().
int reply_passthrough(fuse_req_t req, std::uint64_t handle, std::int32_t backing);

}  // namespace rekeyfs::fs
