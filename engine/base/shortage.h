// Shortage: whether an error means that a resource was exhausted. The call can be retried later, and no data is lost.
#pragma once

#include "engine/base/result.h"

namespace rekeyfs {

// Disk space, descriptors or memory.
inline bool is_shortage(Errc code) {
  return code == Errc::no_space || code == Errc::too_many_files || code == Errc::no_memory;
}

}  // namespace rekeyfs
