// DiskConnection: one connection to the format reader, through which the disk is read by libnbd. What comes from the
// peer is not trusted; every call ends by its deadline. One thread at a time. For FormatReader.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "engine/base/bytes.h"
#include "engine/base/descriptor.h"
#include "engine/base/result.h"

struct nbd_handle;

namespace rekeyfs::formats {

struct Extent {
  std::uint64_t length;  // bytes
  bool zeros;
};

class DiskConnection {
 public:
  using Deadline = std::chrono::steady_clock::time_point;
  static constexpr std::uint32_t kMostRead = 1u << 20;   // bytes of one read
  static constexpr std::uint32_t kMostExtent = 1u << 30;  // bytes of one question about extents

  // Waits until the reader has opened the image and says how large the disk is.
  static Result<std::unique_ptr<DiskConnection>> open(Descriptor socket, Deadline deadline);

  std::uint64_t size() const { return size_; }
  Status read(std::uint64_t offset, ByteSpan out, Deadline deadline);  // at most kMostRead, within the size
  // The first bytes of [offset, offset + length), as many as are of one kind.
  Result<Extent> extent_at(std::uint64_t offset, std::uint32_t length, Deadline deadline);
  // After a timeout or a breach of the protocol nothing can be read any more; a refused read leaves it usable.
  bool is_usable() const;

 private:
  struct Close {
    void operator()(nbd_handle* handle) const;
  };
  Status finish(std::int64_t cookie, Deadline deadline);
  Status step(Deadline deadline);

  std::unique_ptr<nbd_handle, Close> handle_;
  std::uint64_t size_ = 0;
};

}  // namespace rekeyfs::formats
