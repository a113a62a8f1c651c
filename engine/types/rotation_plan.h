// RotationPlan: what giving a directory a new key does.
#pragma once

#include <cstdint>

namespace rekeyfs {

struct RotationPlan {
  std::uint64_t images = 0;              // to be encrypted anew
  std::uint64_t bytes_to_transform = 0;  // at most
  std::uint64_t space_needed = 0;        // bytes more than now, at one time, at most: images are done one after the other
  std::uint64_t space_available = 0;     // bytes
};

}  // namespace rekeyfs
