// KeyInfo: the metadata of a master key: name, state, grants. No key material.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs::kms {

using KeyId = Uuid;
using KeyVersion = std::uint32_t;  // starts at 1; each rotation adds one

enum class KeyState : std::uint8_t {  // numbers on disk, never reused
  enabled = 1,
  disabled = 2,
  pending_deletion = 3,
};
std::string_view name_of(KeyState state);

struct KeyInfo {
  KeyId id{};
  // Unique; 1 to 128 characters of [A-Za-z0-9._-], not starting with '-' or '.', not 32 hex digits.
  std::string alias;
  KeyState state = KeyState::enabled;
  KeyVersion version = 1;  // version that wraps new data keys
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // due time of a pending deletion; 0: none
  KeyVersion oldest = 1;        // oldest existing version, for data keys not rewrapped since a rotation
  std::vector<uid_t> grantees;  // users besides the owner and operators who may use the key; sorted
  // Users besides these who may copy content of the key to where it is plain; sorted. Does not include the right to use
  // the key.
  std::vector<uid_t> declassifiers;
};

bool is_alias(std::string_view text);
bool is_hex_id(std::string_view text);  // exactly 32 hex digits

// OK if the key is enabled; else Errc::key_revoked, and the message says how to make it usable again.
Status check_enabled(const KeyInfo& key);

// A wrapped data key, as stored. The wrapping authenticates its context (the layer), the master key and its version. It
// is key-committing: unwrapping with any other master key fails.
struct WrappedKey {
  KeyVersion version = 0;
  std::string bytes;
  friend bool operator==(const WrappedKey&, const WrappedKey&) = default;
};

}  // namespace rekeyfs::kms
