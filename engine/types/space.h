// Space: the space of a store, or of a directory with a quota.
#pragma once

#include <cstdint>
#include <limits>

namespace rekeyfs {

struct Space {
  // Bytes of the file system that holds the store; below a quota, of the quota.
  std::uint64_t total = 0, available = 0;
  std::uint64_t nodes = 0;  // files, directories and links in the store; below a quota, those that count in it
  std::uint64_t nodes_left = std::numeric_limits<std::uint64_t>::max();  // that a quota still allows
};

}  // namespace rekeyfs
