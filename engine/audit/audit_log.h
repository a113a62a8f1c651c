// AuditLog: who did what and when, kept in the catalog (Table::audit) and so persistent and authenticated.
//
// Bounded: whoever adds an entry drops the oldest in the same transaction, so a user who provokes refusals cannot fill
// the store. An entry that tells of a change goes into the change's own transaction; neither is there without the
// other. No secrets in it. Thread-safe.
#pragma once

#include <atomic>

#include "engine/catalog/catalog.h"
#include "engine/kms/key_directory.h"
#include "engine/types/event.h"

namespace rekeyfs::audit {

inline constexpr std::uint64_t kMostEvents = 10'000;

class AuditLog {
 public:
  // `catalog` outlives it.
  explicit AuditLog(catalog::Catalog& catalog) : catalog_(catalog) {}
  Status load();  // finds where the log ends; before anything is added

  // Within the transaction of the change it tells of. The number is drawn here; `time` is now if it is 0.
  Status add(catalog::WriteTxn& txn, Event event);
  // In a transaction of its own: not for inside another one.
  Status add(Event event);

  // Oldest first. Costs some microseconds for each entry looked at, from the newest back; writers are not kept waiting.
  Result<std::vector<Event>> find(const EventQuery& query) const;

 private:
  catalog::Catalog& catalog_;
  std::atomic<std::uint64_t> next_{1};
  std::uint64_t oldest_ = 1;  // none before it has a record; whoever holds a WriteTxn may use it
};

// What the log calls a key; nothing for a plain image. By the key directory.
EventKey key_named(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& id);

}  // namespace rekeyfs::audit
