// KeyFacts: a master key as users see it; KeyUse: an image that needs it; KeyChange: one step in its life.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"

namespace rekeyfs {

struct KeyFacts {
  std::string id;  // hex
  std::string alias;
  std::string state;  // "enabled", "disabled", "pending-deletion"
  std::uint32_t version = 1;  // the one that wraps new data keys
  std::uint32_t oldest = 1;   // kept for data keys that were wrapped before a rotation
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // when it takes place, if pending; 0 otherwise
  std::vector<uid_t> grantees;  // who may use it beside its owner and root
};

struct KeyUse {
  std::string path;    // of an image that needs the key
  std::string reason;  // "encrypted with it" or "source of a replication"
  std::string until;   // words: "until its replication is complete (41.2 % done)"
};

// One step in a key's life.
struct KeyChange {
  enum class Kind { rotate, disable, enable, schedule_deletion, cancel_deletion, grant, revoke };
  Kind kind = Kind::rotate;
  bool force = false;   // disable, schedule_deletion: although images need it
  Timestamp delay = 0;  // schedule_deletion: from now, nanoseconds
  uid_t user = 0;       // grant, revoke
};

}  // namespace rekeyfs
