// Event: an entry of the audit log: who did what, and when. LogVerification: whether the log is whole.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs {

enum class EventKind : std::uint8_t {  // numbers on disk
  replication_asked = 1,      // the copy exists and is usable; its blocks follow
  replication_completed = 2,  // the replica is independent of its source
  replication_failed = 3,     // the replication is suspended; `text` says why
  replication_recovered = 4,  // the replication was resumed
  cloned = 5,                 // a copy within one key, complete immediately
  refused = 6,                // `text` is the rule, `code` the error returned
  key_created = 7,
  key_rotated = 8,
  key_disabled = 9,
  key_enabled = 10,
  key_deletion_asked = 11,
  key_deletion_cancelled = 12,
  key_deleted = 13,           // what the key encrypted is unreadable
  key_granted = 14,           // `text` names the grantee
  key_revoked = 15,
  rotation_asked = 16,        // a directory gets a new key; each of its images is replicated
  policy_changed = 17,        // user.rekeyfs.* of a directory or an image was set or removed; `text` says which, from what to what
  quota_changed = 18,         // `text` says from what to what
  declassified = 19,          // an image was copied from a key (key_before) to plain
  rotation_skipped = 20,      // an image keeps its key while that of its directory changes; `text` says why
  clock_jumped = 21,          // `text` says from when to when
  right_granted = 22,         // of a key; `text` names the user and the right
  right_revoked = 23,
};

inline constexpr uid_t kSeveralUsers = static_cast<uid_t>(-1);  // as the user of an event: refusals of many users

std::string_view name_of(EventKind kind);  // "replication-asked"; "" for an unknown number

struct EventKey {
  std::string id;     // hex; empty for plain
  std::string alias;  // at the time of the event
};

struct Event {
  std::uint64_t number = 0;  // ascending; where one is missing, an event has been dropped
  EventKind kind = EventKind::refused;
  Timestamp time = 0;
  uid_t uid = 0;       // user who asked; for background events, the user who had asked for the work
  std::string path;    // of the target, from the store's root
  std::string source;  // path of the source at the time of the copy
  EventKey key;        // of the target; for a key operation, the key itself
  EventKey key_before;  // of the source
  std::optional<Errc> code;
  std::string text;               // a sentence with details; may be empty
  std::uint64_t bytes = 0;        // replication_completed: bytes transformed since it was last taken up
  std::uint64_t nanoseconds = 0;  // time that this took; 0: unknown
  std::uint64_t count = 1;        // refused: how many refusals this event stands for; earlier events count their own
  Timestamp since = 0;            // if more than one: time of the first of them
};

struct EventQuery {
  std::optional<uid_t> uid;  // only events of this user
  std::optional<EventKind> kind;
  std::uint64_t after = 0;  // only events with a higher number
  std::size_t most = 100;   // at most this many, the newest ones
  bool oldest = false;      // the oldest ones instead
  std::size_t most_bytes = SIZE_MAX;  // of the first ones found, approximately; the others are left out
};

struct LogVerification {
  std::uint64_t first = 0, last = 0;  // numbers of the first and the last event that the chain covers; 0: none
  std::uint64_t events = 0;           // of these, still in the log
  std::uint64_t newest = 0;           // highest number that an event has or had, as far as known; 0: none
  std::uint64_t unverified = 0;       // events before the chain began
  std::vector<std::string> problems;  // what is missing or changed, a sentence each
};

}  // namespace rekeyfs
