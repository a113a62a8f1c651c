// Space: the space of a store.
#pragma once

#include <cstdint>

namespace rekeyfs {

struct Space {
  std::uint64_t total = 0, available = 0;  // bytes of the file system that holds the store
  std::uint64_t nodes = 0;                 // files, directories and links in the store
};

}  // namespace rekeyfs
