// AuditLog: who did what and when. Stored in the catalog (Table::audit), and so persistent and authenticated.
//
// Bounded: each added entry drops the oldest one in the same transaction, so that a user who provokes refusals cannot
// fill the store. The entry of a change is part of the change's own transaction, so neither exists without the other.
// Entries contain no secrets. Thread-safe.
#pragma once

#include <atomic>

#include "engine/catalog/catalog.h"
#include "engine/kms/key_directory.h"
#include "engine/types/event.h"

namespace rekeyfs::audit {

inline constexpr std::uint64_t kMaxEvents = 10'000;

class AuditLog {
 public:
  // `catalog` must outlive it.
  explicit AuditLog(catalog::Catalog& catalog) : catalog_(catalog) {}
  Status load();  // finds the end of the log; call before anything is added

  // Adds an entry in the transaction of the change that it records. Assigns the number; `time` 0 means now.
  Status add(catalog::WriteTxn& txn, Event event);
  // Adds an entry in its own transaction: do not call it inside another one.
  Status add(Event event);

  // Ordered from oldest to newest. Costs some microseconds per entry searched, from the newest back; does not block
  // writers.
  Result<std::vector<Event>> find(const EventQuery& query) const;

 private:
  catalog::Catalog& catalog_;
  std::atomic<std::uint64_t> next_{1};
  std::uint64_t oldest_ = 1;  // no entry before it has a record; used by the holder of a WriteTxn only
};

// The name of a key in the log, from the key directory; nullopt for a plain image.
EventKey key_named(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& id);

}  // namespace rekeyfs::audit
