#include "engine/replication/filler.h"

#include <algorithm>
#include <new>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::replication {

using catalog::Table;
using catalog::make_key;

namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t kStep = 64;  // blocks a worker takes at a time: 1 MiB
constexpr auto kRetry = 1s;
constexpr Background::Duration kLook = 20ms;  // for jobs whose time has come
constexpr int kNice = 10;  // readers and writers go first

}  // namespace

Filler::Filler(store::Store& store, const names::Tree& tree, audit::AuditLog& audit)
    : store_(store), tree_(tree), audit_(audit), background_("filler", kNice) {}

Status Filler::resume() {
  std::vector<Ino> targets;
  RK_TRY(store_.catalog().scan(make_key(Table::replication), "", [&](std::string_view key, std::string_view) {
    targets.push_back(Ino{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (Ino ino : targets) {
    const auto inode = tree_.get(ino);
    if (!inode || progress_of(ino)) continue;
    const auto layer = store_.layers().get(inode->image.layer);
    if (layer) add(ino, *layer, false, inode->image.error);
    else log::error("{} cannot be filled: {}", tree_.path_of(ino), describe(layer.error()));
  }
  return {};
}

// Without memory for a job: its replication is on record.
void Filler::resume_forgotten() {
  if (!must_resume_.exchange(false)) return;
  const Status resumed = caught([&] { return resume(); });
  if (resumed) return;
  must_resume_.store(true);
  log::error("replications cannot be listed: {}", resumed.error().message);
}

Status Filler::start(unsigned workers) {
  return background_.start([this] { return step(); }, workers);
}

void Filler::add(Ino ino, const std::shared_ptr<blocks::Layer>& layer, bool held, const std::string& error) noexcept {
  layer->keep_reads(true);
  try {
    auto job = std::make_shared<Job>();
    job->ino = ino;
    job->layer = layer;
    job->held = held;
    job->error = error;
    job->next = layer->filled();
    job->done_before = job->next * layer->block_size();
    job->stored_before = layer->stored();
    Lock lock(mutex_);
    jobs_.insert_or_assign(ino, std::move(job));
  } catch (const std::bad_alloc&) {
    must_resume_.store(true);
  }
  background_.wake();
}

void Filler::let_go(Ino ino) {
  {
    Lock lock(mutex_);
    if (const auto found = jobs_.find(ino); found != jobs_.end()) found->second->held = false;
  }
  background_.wake();
}

void Filler::cancel(Ino ino) {
  Lock lock(mutex_);
  jobs_.erase(ino);
}

std::uint64_t Filler::end_of(const Job& job) {
  return (job.layer->size() + job.layer->block_size() - 1) / job.layer->block_size();
}

std::vector<Filler::Progress> Filler::progress() const {
  std::vector<Progress> all;
  Lock lock(mutex_);
  for (const auto& [ino, job] : jobs_) all.push_back(progress_of(*job));
  return all;
}

std::optional<Filler::Progress> Filler::progress_of(Ino ino) const {
  Lock lock(mutex_);
  const auto found = jobs_.find(ino);
  return found == jobs_.end() ? std::nullopt : std::optional(progress_of(*found->second));
}

Filler::Progress Filler::progress_of(const Job& job) {
  Progress one;
  one.ino = job.ino;
  one.total = job.layer->size();
  one.done = std::min(one.total, job.layer->filled() * job.layer->block_size());
  const double seconds = std::chrono::duration<double>(Clock::now() - job.begun).count();
  if (seconds > 0.05 && one.done > job.done_before) one.rate = static_cast<double>(one.done - job.done_before) / seconds;
  one.error = job.error;
  return one;
}

double Filler::Progress::percent() const {
  return total == 0 ? 0 : std::min(99.9, 100.0 * static_cast<double>(done) / static_cast<double>(total));
}

std::optional<std::string> Filler::error_of(Ino ino) const {
  Lock lock(mutex_);
  const auto found = jobs_.find(ino);
  return found == jobs_.end() ? std::nullopt : std::optional(found->second->error);
}

// The job after the last one served that has something to do now.
Filler::JobPtr Filler::next_job() {
  auto at = jobs_.upper_bound(last_);
  for (std::size_t i = 0; i < jobs_.size(); ++i, ++at) {
    if (at == jobs_.end()) at = jobs_.begin();
    const JobPtr& job = at->second;
    if (job->finishing || job->retry_at > Clock::now()) continue;
    if (job->next < end_of(*job) || (!job->held && job->in_hand.empty())) {
      last_ = job->ino;
      return job;
    }
  }
  return nullptr;
}

Background::Duration Filler::step() {
  resume_forgotten();
  JobPtr job;
  BlockIndex first = 0;
  bool last = false;
  {
    Lock lock(mutex_);
    job = next_job();
    if (!job) return jobs_.empty() && !must_resume_.load() ? Background::kUntilWoken : kLook;
    first = job->next;
    last = first >= end_of(*job);
    if (last) {
      job->finishing = true;
    } else {
      job->in_hand.insert(first);
      job->next += kStep;
    }
  }
  if (last) finish(job);
  else fill_some(job, first);
  return Background::Duration::zero();
}

void Filler::fill_some(const JobPtr& job, BlockIndex first) {
  BlockIndex index = first;
  const Status status = caught([&]() -> Status {
    RK_TRY(store_.health().is_sound());
    return fill_from(*job, index, first + kStep);
  });
  if (status) recovered(job, first, first + kStep);
  else failed(job, first, status.error());
  {
    Lock lock(mutex_);
    job->in_hand.erase(job->in_hand.find(first));
    if (status) job->next = std::max(job->next, index);  // a run of holes is passed at once
    else job->next = std::min(job->next, first);
    const BlockIndex filled = job->in_hand.empty() ? job->next : std::min(job->next, *job->in_hand.begin());
    const Status noted = caught([&] { return job->layer->set_filled(std::min(filled, end_of(*job))); });
    if (!noted) log::debug("{}", noted.error().message);  // how far it was only saves time after a mount
  }
  background_.wake();
}

// Moves `index` on to `end`, or beyond where all is done.
Status Filler::fill_from(const Job& job, BlockIndex& index, BlockIndex end) {
  while (index < end) {
    RK_TRY_ASSIGN(const std::uint64_t done, job.layer->fill(index, end - index));
    index += done == 0 ? end - index : done;
  }
  return {};
}

void Filler::finish(const JobPtr& job) {
  Status status = caught([&] { return fill_rest(*job); });
  BlockIndex failed_at = 0;
  if (status) {
    recovered(job, 0, end_of(*job));
    status = caught([&] { return complete(*job); });
    failed_at = end_of(*job);  // no block's fault
  }
  if (!status) failed(job, failed_at, status.error());
  Lock lock(mutex_);
  job->finishing = false;
  if (!status) return;
  if (const auto found = jobs_.find(job->ino); found != jobs_.end() && found->second == job) jobs_.erase(found);
}

// Once more from the start: extents may have been copied in behind the workers. Passes what is done quickly.
Status Filler::fill_rest(const Job& job) {
  for (BlockIndex index = 0;;) {
    RK_TRY_ASSIGN(const std::uint64_t done, job.layer->fill(index, kStep));
    if (done == 0) return {};
    index += done;
  }
}

// From here on the image stands alone. Its blocks are durable before the record that says so, and the base goes
// only after that record is.
Status Filler::complete(const Job& job) {
  RK_TRY(store_.checkpointer().sync_journal({job.layer}));
  const std::string path = tree_.path_of(job.ino);
  RK_TRY_ASSIGN(const bool is_complete, record_completion(job));
  if (!is_complete) return {};
  job.layer->keep_reads(false);
  if (const std::shared_ptr<blocks::Layer> base = job.layer->base()) base->unshare();
  job.layer->drop_base();
  log::info("{} is complete", path);
  if (completed_) completed_(job.ino);
  return {};
}

Result<bool> Filler::record_completion(const Job& job) {
  const std::string key = make_key(Table::replication, job.ino.value());
  Event event = event_of(job, EventKind::replication_completed);
  std::vector<blocks::LayerRegistry::Released> released;
  {
    catalog::WriteTxn txn(store_.catalog());
    RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, job.ino));
    if (inode.image.layer != job.layer->id()) return false;
    RK_TRY_ASSIGN(const auto record, txn.get(key));
    if (!record) return true;  // by an attempt that failed later
    // It stands alone in both; in the first all is known of it, too.
    inode.image.state = inode.image.findings ? ImageState::normal : ImageState::normal_uninitialized;
    inode.image.error.clear();
    if (inode.image.lineage) inode.image.lineage->completed = now();
    RK_TRY_ASSIGN(released, store_.layers().detach(txn, job.layer->id()));
    names::Tree::put(txn, job.ino, inode);
    txn.erase(key);
    RK_TRY(audit_.add(txn, std::move(event)));
    RK_TRY(txn.commit());
  }
  store_.layers().forget(released);
  return true;
}

// Made before a transaction: the key service is asked.
Event Filler::event_of(const Job& job, EventKind kind) const {
  Event event;
  event.kind = kind;
  event.path = tree_.path_of(job.ino);
  event.key = audit::key_named(store_.keys(), job.layer->made_as().key);
  if (const std::shared_ptr<blocks::Layer> base = job.layer->base())
    event.key_before = audit::key_named(store_.keys(), base->made_as().key);
  const auto bytes = store_.catalog().get(make_key(Table::replication, job.ino.value()));
  if (bytes && *bytes) {
    if (const auto record = ReplicationRecord::decode(**bytes)) {
      event.source = record->source;
      event.uid = record->uid;
    }
  }
  if (kind == EventKind::replication_completed) {
    event.bytes = job.layer->stored() - std::min(job.layer->stored(), job.stored_before);
    if (!job.has_failed) event.nanoseconds = static_cast<std::uint64_t>((Clock::now() - job.begun) / 1ns);
  }
  return event;
}

Status Filler::record_error(const Job& job, const std::string& message) {
  Event event = event_of(job, message.empty() ? EventKind::replication_recovered : EventKind::replication_failed);
  event.text = message;
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, job.ino));
  if (inode.image.layer != job.layer->id()) return {};
  inode.image.state = message.empty() ? ImageState::replicating : ImageState::error;
  inode.image.error = message;
  names::Tree::put(txn, job.ino, inode);
  RK_TRY(audit_.add(txn, std::move(event)));
  RK_TRY(txn.commit());
  return {};
}

void Filler::recovered(const JobPtr& job, BlockIndex from, BlockIndex to) {
  {
    Lock lock(mutex_);
    if (job->error.empty() || job->failed_at < from || job->failed_at >= to) return;
    job->error.clear();
  }
  const Status status = caught([&] { return record_error(*job, ""); });
  if (!status) log::error("{}", status.error().message);
}

void Filler::failed(const JobPtr& job, BlockIndex at, const Error& error) {
  if (error.code == Errc::stale) return cancel(job->ino);  // deleted
  {
    Lock lock(mutex_);
    job->retry_at = Clock::now() + kRetry;
  }
  const Status told = caught([&] { return tell(job, at, describe(error) + "; it goes on by itself once the cause is gone"); });
  if (!told) log::error("{}", told.error().message);
}

Status Filler::tell(const JobPtr& job, BlockIndex at, const std::string& message) {
  {
    Lock lock(mutex_);
    job->failed_at = job->error.empty() ? at : std::min(at, job->failed_at);
    if (job->error == message) return {};
    job->error = message;
    job->has_failed = true;
  }
  log::error("replication of {}: {}", tree_.path_of(job->ino), message);
  return record_error(*job, message);
}

}  // namespace rekeyfs::replication
