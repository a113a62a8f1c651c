// AuditLog: who did what and when. Stored in the catalog, and so persistent and authenticated; the events form a chain
// (event_chain.h).
//
// Bounded: an event that is added drops another one in the same transaction once its ring is full (event_index.h), so
// that a user who provokes events can fill neither the store nor the others' history. The event of a change is part of
// the change's own transaction, so neither exists without the other. Events contain no secrets. Thread-safe.
#pragma once

#include <optional>

#include "engine/audit/event_chain.h"
#include "engine/audit/event_index.h"
#include "engine/base/mutex.h"
#include "engine/catalog/catalog.h"
#include "engine/kms/key_directory.h"
#include "engine/types/event.h"

namespace rekeyfs::audit {

class AuditLog {
 public:
  // `catalog` must outlive it.
  explicit AuditLog(catalog::Catalog& catalog, const RingBounds& bounds = kRingBounds) : catalog_(catalog), index_(bounds) {}
  // Finds the events of the log; call once, before anything is added.
  Status load(const crypto::Key& root, const Uuid& store) EXCLUDES(mutex_);
  // Gives new numbers to events that an earlier version of rekeyfs has added since the chain began. Call after load(),
  // unless the store is read-only.
  Status take_over() EXCLUDES(mutex_);

  // Adds an event in the transaction of the change that it records. Assigns the number; `time` 0 means now.
  Status add(catalog::WriteTxn& txn, Event event) EXCLUDES(mutex_);
  // Adds an event in its own transaction: do not call it inside another one.
  Status add(Event event) EXCLUDES(mutex_);

  // Ordered from oldest to newest. Costs some microseconds per event found; does not block writers.
  Result<std::vector<Event>> find(const EventQuery& query) const EXCLUDES(mutex_);
  // Blocks writers meanwhile.
  Result<LogVerification> verify() const;
  std::uint64_t newest_at_load() const { return newest_at_load_; }

 private:
  struct Dropped {
    std::uint64_t number;
    EventIndex::Entry entry;
  };

  std::string key_of(std::uint64_t number) const;
  Result<std::optional<Event>> read(std::uint64_t number) const;
  Result<ChainHead> head_in(const catalog::WriteTxn& txn) REQUIRES(mutex_);
  Status settle(const catalog::WriteTxn& txn, const ChainHead& head) REQUIRES(mutex_);
  Status make_room(catalog::WriteTxn& txn, ChainHead& head, const EventIndex::Entry& added) REQUIRES(mutex_);
  Status drop(catalog::WriteTxn& txn, ChainHead& head, std::uint64_t number);

  catalog::Catalog& catalog_;
  std::optional<EventChain> chain_;  // set by load()
  std::uint64_t first_chained_ = 1;  // events with lower numbers are in Table::audit; set by load()
  std::uint64_t newest_at_load_ = 0;
  mutable Mutex mutex_;
  // May have events of transactions that were given up. Their numbers are used again.
  EventIndex index_ GUARDED_BY(mutex_);
  std::vector<Dropped> dropped_ GUARDED_BY(mutex_);  // by transactions that may have been given up
};

// The name of a key in the log, from the key directory; nullopt for a plain image.
EventKey key_named(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& id);

}  // namespace rekeyfs::audit
