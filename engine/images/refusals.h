// Refusals: enforces rules that forbid a call and records violations in the audit log. Thread-safe.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "engine/audit/audit_log.h"
#include "engine/store/store.h"
#include "engine/types/caller.h"

namespace rekeyfs::images {

class Refusals {
 public:
  Refusals(store::Store& store, audit::AuditLog& audit) : store_(store), audit_(audit) {}  // both must outlive it

  // Whether the caller may use the key. A refusal is recorded in the audit log under `path`.
  Status check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path);

  static Event event_of(std::string path, const Caller& caller, const Error& rule);
  void record(Event refusal);

 private:
  store::Store& store_;
  audit::AuditLog& audit_;
};

}  // namespace rekeyfs::images
