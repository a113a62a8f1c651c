// QuotaState: the limits of a directory, and what counts towards them.
#pragma once

#include <cstdint>

namespace rekeyfs {

struct QuotaState {
  std::uint64_t most_bytes = 0, most_images = 0;  // 0: no limit
  std::uint64_t bytes = 0, images = 0;            // in use
};

}  // namespace rekeyfs
