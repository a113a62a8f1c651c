#include "engine/images/refusals.h"

#include "engine/base/log.h"
#include "engine/keys/key_access.h"

namespace rekeyfs::images {

Status Refusals::check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path) {
  const Status may = keys::may_use(store_.keys(), key, caller);
  if (may) return {};
  Event refusal = event_of(path(), caller, may.error());
  refusal.key = audit::key_named(store_.keys(), key);
  record(std::move(refusal));
  return may;
}

Event Refusals::event_of(std::string path, const Caller& caller, const Error& rule) {
  Event refusal;
  refusal.kind = EventKind::refused;
  refusal.path = std::move(path);
  refusal.uid = caller.uid;
  refusal.code = rule.code;
  refusal.text = describe(rule);
  return refusal;
}

void Refusals::record(Event refusal) {
  log::warn("refused: {} -> {}: {} (uid {})", refusal.source, refusal.path, refusal.text, refusal.uid);
  // The refusal stands even if it cannot be recorded, as on a full disk.
  if (const Status kept = audit_.add(std::move(refusal)); !kept)
    log::error("cannot write to the audit log: {}", describe(kept.error()));
}

}  // namespace rekeyfs::images
