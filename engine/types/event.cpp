#include "engine/types/event.h"

namespace rekeyfs {

std::string_view name_of(EventKind kind) {
  switch (kind) {
    case EventKind::replication_asked: return "replication-asked";
    case EventKind::replication_completed: return "replication-completed";
    case EventKind::replication_failed: return "replication-failed";
    case EventKind::replication_recovered: return "replication-recovered";
    case EventKind::cloned: return "cloned";
    case EventKind::refused: return "refused";
    case EventKind::key_created: return "key-created";
    case EventKind::key_rotated: return "key-rotated";
    case EventKind::key_disabled: return "key-disabled";
    case EventKind::key_enabled: return "key-enabled";
    case EventKind::key_deletion_asked: return "key-deletion-asked";
    case EventKind::key_deletion_cancelled: return "key-deletion-cancelled";
    case EventKind::key_deleted: return "key-deleted";
    case EventKind::key_granted: return "key-granted";
    case EventKind::key_revoked: return "key-revoked";
    case EventKind::rotation_asked: return "rotation-asked";
    case EventKind::policy_changed: return "policy-changed";
    case EventKind::quota_changed: return "quota-changed";
    case EventKind::declassified: return "declassified";
    case EventKind::rotation_skipped: return "rotation-skipped";
    case EventKind::clock_jumped: return "clock-jumped";
    case EventKind::right_granted: return "right-granted";
    case EventKind::right_revoked: return "right-revoked";
  }
  return "";
}

}  // namespace rekeyfs
