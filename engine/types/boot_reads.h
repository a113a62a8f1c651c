// BootReads: what the first boot from an image read of it.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/ids.h"

namespace rekeyfs {

struct BootReads {
  struct Range {
    std::uint64_t offset = 0, size = 0;  // bytes
  };
  Timestamp recorded = 0;
  std::vector<Range> ranges;  // in the order in which they were read, none of them twice
  std::uint64_t bytes = 0;    // of all together
};

}  // namespace rekeyfs
