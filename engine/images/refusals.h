// Refusals: enforces rules that forbid a call and records violations in the audit log and the daemon's log, those that
// repeat counted together (refusal_windows.h). Thread-safe.
//
// A kill loses what was counted in the last minute, never the first refusal.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "engine/audit/audit_log.h"
#include "engine/base/background.h"
#include "engine/images/refusal_windows.h"
#include "engine/store/store.h"
#include "engine/types/caller.h"

namespace rekeyfs::images {

class Refusals {
 public:
  Refusals(store::Store& store, audit::AuditLog& audit) : store_(store), audit_(audit) {}  // both must outlive it

  Status start();
  void stop();  // records what has been counted

  // Whether the caller may use the key. A refusal is recorded in the audit log under `path`.
  Status check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path);

  static Event event_of(std::string path, const Caller& caller, const Error& rule);
  void record(Event refusal) EXCLUDES(mutex_);
  // Records an order that failed because the caller has no authority for it; `order` has the path or the key that it is
  // about. Other errors are not recorded.
  void record_order(Event order, const Caller& caller, const Error& error) EXCLUDES(mutex_);

 private:
  Background::Duration step();
  void write(Event refusal);

  store::Store& store_;
  audit::AuditLog& audit_;
  Mutex mutex_;
  RefusalWindows windows_ GUARDED_BY(mutex_);
  Background background_{"refusals"};
};

}  // namespace rekeyfs::images
