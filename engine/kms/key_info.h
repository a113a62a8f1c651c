// What a store says of a master key: its name, its state, who may use it. No key material.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs::kms {

using KeyId = Uuid;
using KeyVersion = std::uint32_t;  // from 1; rotation adds one

enum class KeyState : std::uint8_t {  // numbers on disk, never reused
  enabled = 1,
  disabled = 2,
  pending_deletion = 3,
};
std::string_view name_of(KeyState state);

struct KeyInfo {
  KeyId id{};
  std::string alias;      // unique, 1 to 128 of [A-Za-z0-9._-], not starting with '-' or '.', not 32 hex digits
  KeyState state = KeyState::enabled;
  KeyVersion version = 1;  // the one that wraps new data keys
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // when a pending deletion takes place; 0 if none
  KeyVersion oldest = 1;        // the oldest one kept, for data keys that were not wrapped anew since a rotation
  std::vector<uid_t> grantees;  // users other than the owner and root who may use it; sorted
};

bool is_alias(std::string_view text);
bool is_hex_id(std::string_view text);  // 32 hex digits

// Errc::key_revoked, with the way to make it usable again, unless the key is enabled.
Status check_enabled(const KeyInfo& key);

// A data key as it is stored. The wrapping authenticates its context (which layer), the master key and its version, and
// commits to the master key: no other one opens it to anything.
struct WrappedKey {
  KeyVersion version = 0;
  std::string bytes;
  friend bool operator==(const WrappedKey&, const WrappedKey&) = default;
};

}  // namespace rekeyfs::kms
