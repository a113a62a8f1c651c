// Event: an entry of the audit log: who did what, and when.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs {

enum class EventKind : std::uint8_t {  // numbers on disk
  replication_asked = 1,      // the copy is made and usable, its blocks follow
  replication_completed = 2,  // the replica needs its source no more
  replication_failed = 3,     // it does not go on; `text` says why
  replication_recovered = 4,  // it goes on again
  cloned = 5,                 // a copy within one key: complete at once
  refused = 6,                // `text` is the rule, `code` what the caller got
  key_created = 7,
  key_rotated = 8,
  key_disabled = 9,
  key_enabled = 10,
  key_deletion_asked = 11,
  key_deletion_cancelled = 12,
  key_deleted = 13,           // nobody can read what it encrypts any more
  key_granted = 14,           // `text` says to whom
  key_revoked = 15,
  rotation_asked = 16,        // a directory is given a new key; each of its images is a replication of its own
};

std::string_view name_of(EventKind kind);  // "replication-asked"; empty for a number that is none

struct EventKey {
  std::string id;     // hex; empty for plain
  std::string alias;  // as it was then
};

struct Event {
  std::uint64_t number = 0;  // ascending; not every number is there
  EventKind kind = EventKind::refused;
  Timestamp time = 0;
  uid_t uid = 0;       // who asked; of what happens in the background: who had asked for it
  std::string path;    // of the target, from the store's root
  std::string source;  // path of the source when it was copied
  EventKey key;        // of the target; the one that a key operation is about
  EventKey key_before;  // of the source
  std::optional<Errc> code;
  std::string text;               // a sentence, where there is more to say
  std::uint64_t bytes = 0;        // replication_completed: transformed since it was last taken up
  std::uint64_t nanoseconds = 0;  // and how long that took; 0: not known
};

struct EventQuery {
  std::optional<uid_t> uid;  // only this user's
  std::optional<EventKind> kind;
  std::uint64_t after = 0;  // only those with a higher number
  std::size_t most = 100;   // the newest that many
};

}  // namespace rekeyfs
