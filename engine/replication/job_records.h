// JobRecords: records in the catalog and in the audit log that a replication is complete, suspended (and why) or
// resumed. Thread-safe.
#pragma once

#include "engine/audit/audit_log.h"
#include "engine/namespace/tree.h"
#include "engine/replication/fill_job.h"
#include "engine/store/store.h"
#include "engine/types/event.h"

namespace rekeyfs::replication {

class JobRecords {
 public:
  // All arguments must outlive it.
  JobRecords(store::Store& store, const names::Tree& tree, audit::AuditLog& audit) : store_(store), tree_(tree), audit_(audit) {}

  // The layer stores all of its content durably: records that it stands alone and, if `ino` is an image, that the image
  // is normal. Returns the number of layers that became unused; nullopt if the layer itself was deleted meanwhile.
  Result<std::optional<std::size_t>> complete(const FillJob& job, Ino ino);
  // Records why the replication is suspended; empty: it is resumed. Does nothing if the image continues without the
  // layer.
  Status put_error(const FillJob& job, Ino ino, const std::string& message);

 private:
  Status become_normal(catalog::WriteTxn& txn, Ino ino, LayerId filled, Event event);
  Event event_of(const FillJob& job, Ino ino, EventKind kind) const;

  store::Store& store_;
  const names::Tree& tree_;
  audit::AuditLog& audit_;
};

}  // namespace rekeyfs::replication
