// ReplicationPlan: what a copy of a whole image into a new one would do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs {

struct ReplicationPlan {
  bool transforms = false;             // else it would be a clone
  std::string key_before, key_after;   // alias; empty for plain
  std::string format;                  // what the source is a file of, if the copy becomes the disk in it; else empty
  std::uint64_t size = 0;              // bytes of content of the copy
  std::uint64_t bytes_to_transform = 0;  // at most: what is stored of it, holes are not
  std::uint64_t space_needed = 0;        // bytes, at most; without the records of the catalog
  std::uint64_t space_available = 0;     // bytes
  std::vector<Error> refusals;           // every rule that forbids it, in the order in which a copy meets them
};

}  // namespace rekeyfs
