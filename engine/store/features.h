// Features: extensions of a store beyond format version 1, as three sets of flags in its superblock.
//
// As in ext4, the set decides what a program does that does not know a flag. A store is created without flags; a flag
// is set before its first use (Store::require()) and stays. Bytes: rekeyfs-format(5).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs::store {

struct Features {
  std::uint64_t compat = 0;     // ignores unknown flags
  std::uint64_t ro_compat = 0;  // opens the store read-only
  std::uint64_t incompat = 0;   // refuses to open the store
  friend bool operator==(const Features&, const Features&) = default;
};

// The flags that this program knows.
enum class Feature {
  rules,       // ro_compat 0: directories have rules that a program without it would not enforce
  key_rights,  // incompat 0: key records of version 2, with rights of single users
};
std::string_view name_of(Feature feature);  // "key-rights"
bool has(const Features& features, Feature feature);
Features with(Features features, Feature feature);
// What programs do that do not know the feature, for messages: "cannot open it".
std::string_view effect_of(Feature feature);

// Errc::wrong_version, with the flags in the message, if this program must not open the store at all.
Status can_read(const Features& features);
// The same if this program must not change the store.
Status can_write(const Features& features);
// The flags that this program does not know: "compat 3" is bit 3 of the first set.
std::vector<std::string> unknown_flags(const Features& features);

}  // namespace rekeyfs::store
