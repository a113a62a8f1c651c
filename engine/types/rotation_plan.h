// RotationPlan: what giving a directory a new key would do, or did.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rekeyfs {

struct RotationPlan {
  // An image, or a subdirectory with all that is in it, that keeps its key, and why.
  struct Skipped {
    std::string path;
    std::string why;
  };
  std::vector<Skipped> skipped;          // the first 100
  std::uint64_t skipped_count = 0;       // all of them
  std::uint64_t images = 0;              // number of images to re-encrypt
  std::uint64_t bytes_to_transform = 0;  // upper bound
  // Upper bound of the peak of additional bytes: images are re-encrypted one after the other.
  std::uint64_t space_needed = 0;
  std::uint64_t space_available = 0;     // bytes
};

}  // namespace rekeyfs
