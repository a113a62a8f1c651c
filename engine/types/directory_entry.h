// DirectoryEntry: one name in a directory.
#pragma once

#include <cstdint>
#include <string>

#include "engine/types/attributes.h"

namespace rekeyfs {

struct DirectoryEntry {
  std::string name;
  Ino ino;
  NodeKind kind;
  std::uint64_t next;  // the cookie after this entry; stays valid while the directory changes
};

}  // namespace rekeyfs
