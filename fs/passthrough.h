// Passthrough: an open file whose reads and mappings the kernel serves from a file of ours, past the daemon. For the
// things that libfuse 3.14 has no words for; that the kernel does it at all is agreed on by Device.
//
// The kernel's rules: while an image is open so, every other open of it must be answered so, too, with the same backing
// file; and none may be while it is open in the usual way. What breaks them fails with EIO in the user's open.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/base/result.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// A file that the kernel knows by a number, to be read in the place of an image. The files that are open by that number
// stay so when it goes.
class BackingFile {
 public:
  // `device` is the session's descriptor, which outlives it. Needs CAP_SYS_ADMIN.
  static Result<BackingFile> create(int device, int descriptor);
  BackingFile(BackingFile&& other) noexcept : device_(other.device_), number_(std::exchange(other.number_, 0)) {}
  BackingFile& operator=(BackingFile&&) = delete;
  ~BackingFile();

  std::int32_t number() const { return number_; }

 private:
  BackingFile(int device, std::int32_t number) : device_(device), number_(number) {}
  const int device_;
  std::int32_t number_;  // 0: none
};

// As fuse_reply_open().
int reply_passthrough(fuse_req_t req, std::uint64_t handle, std::int32_t backing);

}  // namespace rekeyfs::fs
