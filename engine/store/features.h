// Features: what a store has beyond format version 1, as three sets of flags in its superblock.
//
// The sets are those of ext4: what a program does with a store that has a flag it does not know. No flag is defined yet:
// this program knows none, and makes stores without any. Bytes: rekeyfs-format(5).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs::store {

struct Features {
  std::uint64_t compat = 0;     // goes on
  std::uint64_t ro_compat = 0;  // reads it, and changes nothing
  std::uint64_t incompat = 0;   // refuses it
};

// Errc::wrong_version, naming the flags, if the store may not be opened at all.
Status can_read(const Features& features);
// The same if it may not be changed.
Status can_write(const Features& features);
// The flags that this program does not know: "compat 3" is bit 3 of the first set.
std::vector<std::string> unknown_flags(const Features& features);

}  // namespace rekeyfs::store
