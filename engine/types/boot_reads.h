// BootReads: the ranges of an image that its first boot read.
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
  std::vector<Range> ranges;  // in the order of the reads, without overlaps
  std::uint64_t bytes = 0;    // total of all ranges
};

}  // namespace rekeyfs
