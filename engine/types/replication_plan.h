// ReplicationPlan: what copying a whole image to a new one would do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs {

struct ReplicationPlan {
  bool transforms = false;             // false: the copy would be a clone
  std::string key_before, key_after;   // alias; empty for plain
  std::string format;                  // format of the source if the copy becomes the disk in it; else empty
  std::uint64_t size = 0;              // of the copy's content
  std::uint64_t bytes_to_transform = 0;  // upper bound: stored bytes without holes
  std::uint64_t space_needed = 0;        // upper bound, without catalog records
  std::uint64_t space_available = 0;     // bytes
  std::vector<Error> refusals;           // all rules that forbid the copy, in the order in which a copy checks them
};

}  // namespace rekeyfs
