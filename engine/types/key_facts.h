// KeyFacts: a master key as users see it; KeyUse: an image that needs it; KeyChange: one change of a key.
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
  std::uint32_t version = 1;  // version that wraps new data keys
  std::uint32_t oldest = 1;   // oldest existing version, for data keys wrapped before a rotation
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // when a pending deletion takes place at the earliest; 0: none
  std::vector<uid_t> grantees;  // users besides the owner and operators who may use the key
  std::vector<uid_t> declassifiers;  // users besides these who may copy its content to where it is plain
  std::string warning;  // after a change that took place: what did not work, and what to do; else empty
};

struct KeyUse {
  Ino image;           // that needs the key
  std::string path;
  std::string reason;  // "encrypted with it" or "source of a replication"
  std::string until;   // for display: "until its replication is complete (41.2 % done)"
};

// One change of a key's state or grants.
struct KeyChange {
  enum class Kind { rotate, disable, enable, schedule_deletion, cancel_deletion, grant, revoke };
  Kind kind = Kind::rotate;
  // Whether it makes the images of the key unreadable.
  bool takes_away() const { return kind == Kind::disable || kind == Kind::schedule_deletion; }
  bool force = false;   // disable, schedule_deletion: even if images need the key
  Timestamp delay = 0;  // schedule_deletion: nanoseconds from now
  uid_t user = 0;       // grant, revoke
  // grant: the right to declassify, not the right to use the key; revoke: only that right, not all rights of the user.
  bool declassify = false;
};

}  // namespace rekeyfs
