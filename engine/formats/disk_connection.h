// DiskConnection: one connection to the format reader, which reads the disk through libnbd. The peer is not trusted,
// and every call ends by its deadline. Not thread-safe. For FormatReader.
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
  std::uint64_t length;  // in bytes
  bool zeros;
};

class DiskConnection {
 public:
  using Deadline = std::chrono::steady_clock::time_point;
  static constexpr std::uint32_t kMaxRead = 1u << 20;   // maximum bytes of one read
  static constexpr std::uint32_t kMaxExtent = 1u << 30;  // maximum bytes of one extent request

  // Waits until the format reader has opened the image and reports the size of the disk.
  static Result<std::unique_ptr<DiskConnection>> open(Descriptor socket, Deadline deadline);

  std::uint64_t size() const { return size_; }
  Status read(std::uint64_t offset, ByteSpan out, Deadline deadline);  // at most kMaxRead, within the size
  // The longest prefix of [offset, offset + length) that is either all zeros or all data.
  Result<Extent> extent_at(std::uint64_t offset, std::uint32_t length, Deadline deadline);
  // False after a timeout or a protocol violation. A read that the peer refused leaves the connection usable.
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
