// Space: the room that a store has.
#pragma once

#include <cstdint>

namespace rekeyfs {

struct Space {
  std::uint64_t total = 0, available = 0;  // bytes of the file system below the store
  std::uint64_t nodes = 0;                 // files, directories and links in the store
};

}  // namespace rekeyfs
