// Usage: what quotas count of a directory.
#pragma once

#include <cstdint>

namespace rekeyfs::quota {

struct Usage {
  std::uint64_t bytes = 0;   // stored blocks, promised space, extended attributes
  std::uint64_t images = 0;  // names: images, directories and symbolic links are one record each

  Usage& operator+=(const Usage& other) {
    bytes += other.bytes;
    images += other.images;
    return *this;
  }
  // Stops at 0.
  Usage& operator-=(const Usage& other) {
    bytes -= bytes < other.bytes ? bytes : other.bytes;
    images -= images < other.images ? images : other.images;
    return *this;
  }
};

}  // namespace rekeyfs::quota
