// Features: extensions of a store beyond format version 1, as three sets of flags in its superblock.
//
// As in ext4, the set decides what a program does that does not know a flag. No flag is defined yet: this program knows
// none and creates stores without flags. Bytes: rekeyfs-format(5).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs::store {

struct Features {
  std::uint64_t compat = 0;     // ignores unknown flags
  std::uint64_t ro_compat = 0;  // opens the store read-only
  std::uint64_t incompat = 0;   // refuses to open the store
};

// Errc::wrong_version, with the flags in the message, if this program must not open the store at all.
Status can_read(const Features& features);
// The same if this program must not change the store.
Status can_write(const Features& features);
// The flags that this program does not know: "compat 3" is bit 3 of the first set.
std::vector<std::string> unknown_flags(const Features& features);

}  // namespace rekeyfs::store
