// Shortage: whether an error says that something ran out. What failed can be done later, and nothing is known to be lost.
#pragma once

#include "engine/base/result.h"

namespace rekeyfs {

// The disk is full, or the table of descriptors, or the memory.
inline bool is_shortage(Errc code) {
  return code == Errc::no_space || code == Errc::too_many_files || code == Errc::no_memory;
}

}  // namespace rekeyfs
