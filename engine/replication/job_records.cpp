#include "engine/replication/job_records.h"

#include <algorithm>

#include "engine/replication/pending.h"
#include "engine/replication/replication_record.h"
#include "engine/types/image_state.h"

namespace rekeyfs::replication {

using catalog::Table;
using catalog::make_key;
using namespace std::chrono_literals;

Result<std::optional<std::size_t>> JobRecords::complete(const FillJob& job, Ino ino) {
  const LayerId filled = job.layer->id();
  Event event = event_of(job, ino, EventKind::replication_completed);
  std::vector<blocks::LayerRegistry::Released> released;
  {
    catalog::WriteTxn txn(store_.catalog());
    const auto record = store_.layers().record_of(filled);
    if (!record) return std::optional<std::size_t>{};
    if (!record->base) return std::optional<std::size_t>{0};  // recorded by an attempt that failed later
    if (ino) RK_TRY(become_normal(txn, ino, filled, std::move(event)));
    RK_TRY_ASSIGN(released, store_.layers().detach(txn, filled));
    RK_TRY(txn.commit());
  }
  store_.layers().forget(released);
  return std::optional(released.size());
}

Status JobRecords::become_normal(catalog::WriteTxn& txn, Ino ino, LayerId filled, Event event) {
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, ino));
  RK_TRY_ASSIGN(const LayerId awaited, layer_to_fill(store_.layers(), inode.image.layer));
  if (awaited != filled) return {};  // the image's content was replaced meanwhile
  // In both states the image stands alone; in state normal its findings are known, too.
  inode.image.state = inode.image.findings ? ImageState::normal : ImageState::normal_uninitialized;
  inode.image.error.clear();
  if (inode.image.lineage) inode.image.lineage->completed = now();
  names::Tree::put(txn, ino, inode);
  txn.erase(make_key(Table::replication, ino.value()));
  return audit_.add(txn, std::move(event));
}

Status JobRecords::put_error(const FillJob& job, Ino ino, const std::string& message) {
  if (!ino) return {};
  Event event = event_of(job, ino, message.empty() ? EventKind::replication_recovered : EventKind::replication_failed);
  event.text = message;
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, ino));
  RK_TRY_ASSIGN(const LayerId awaited, layer_to_fill(store_.layers(), inode.image.layer));
  if (awaited != job.layer->id()) return {};
  inode.image.state = message.empty() ? ImageState::replicating : ImageState::error;
  inode.image.error = message;
  names::Tree::put(txn, ino, inode);
  RK_TRY(audit_.add(txn, std::move(event)));
  RK_TRY(txn.commit());
  return {};
}

// Called before the transaction, to keep transactions short.
Event JobRecords::event_of(const FillJob& job, Ino ino, EventKind kind) const {
  Event event;
  event.kind = kind;
  event.path = tree_.path_of(ino);
  event.key = audit::key_named(store_.keys(), job.layer->made_as().key);
  if (const std::shared_ptr<blocks::Layer> base = job.layer->base())
    event.key_before = audit::key_named(store_.keys(), base->made_as().key);
  const auto bytes = store_.catalog().get(make_key(Table::replication, ino.value()));
  if (bytes && *bytes) {
    if (const auto record = ReplicationRecord::decode(**bytes)) {
      event.source = record->source;
      event.uid = record->uid;
    }
  }
  if (kind == EventKind::replication_completed) {
    event.bytes = job.layer->stored() - std::min(job.layer->stored(), job.stored_before);
    if (!job.has_failed) event.nanoseconds = static_cast<std::uint64_t>((FillJob::Clock::now() - job.begun) / 1ns);
  }
  return event;
}

}  // namespace rekeyfs::replication
