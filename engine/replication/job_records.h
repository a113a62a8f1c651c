// JobRecords: what the catalog and the audit log are told of a replication: that it is complete, that it does not go on and
// why, that it goes on again. Thread-safe.
#pragma once

#include "engine/audit/audit_log.h"
#include "engine/namespace/tree.h"
#include "engine/replication/fill_job.h"
#include "engine/store/store.h"
#include "engine/types/event.h"

namespace rekeyfs::replication {

class JobRecords {
 public:
  // All outlive it.
  JobRecords(store::Store& store, const names::Tree& tree, audit::AuditLog& audit) : store_(store), tree_(tree), audit_(audit) {}

  // The layer's content is all its own and durable: it stands alone from here on, and `ino`, if it is an image, is normal.
  // How many layers nobody needs any more; none if the layer itself was deleted meanwhile.
  Result<std::optional<std::size_t>> complete(const FillJob& job, Ino ino);
  // Why it does not go on; empty: it goes on again. Nothing to record if the image has gone on without the layer.
  Status put_error(const FillJob& job, Ino ino, const std::string& message);

 private:
  Status become_normal(catalog::WriteTxn& txn, Ino ino, LayerId filled, Event event);
  Event event_of(const FillJob& job, Ino ino, EventKind kind) const;

  store::Store& store_;
  const names::Tree& tree_;
  audit::AuditLog& audit_;
};

}  // namespace rekeyfs::replication
