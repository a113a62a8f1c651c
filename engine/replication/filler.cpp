#include "engine/replication/filler.h"

#include <algorithm>
#include <limits>
#include <new>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "engine/types/image_state.h"

namespace rekeyfs::replication {

using blocks::LayerRecord;
using catalog::Table;
using catalog::make_key;

namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t kStep = 64;  // blocks a worker takes at a time: 1 MiB
constexpr auto kRetry = 1s;
constexpr Background::Duration kLook = 20ms;  // for jobs whose time has come
constexpr std::size_t kMostWrapped = 8;
constexpr int kNice = 10;  // readers and writers go first
constexpr auto kGiveWay = 1ms;
constexpr int kMostTurns = 20;  // that readers are given for 1 MiB: they slow it down, and never stop it

bool is_wrapped(const blocks::Layer& layer) { return layer.made_as().base_format != formats::Format::raw; }

}  // namespace

Filler::Filler(store::Store& store, const names::Tree& tree, const Readers& readers, const boot::BootProfiles& profiles, audit::AuditLog& audit)
    : store_(store), tree_(tree), readers_(readers), profiles_(profiles), audit_(audit), background_("filler", kNice) {}

// --- jobs ------------------------------------------------------------------------------------------------------

Status Filler::resume() {
  std::vector<Ino> targets;
  RK_TRY(store_.catalog().scan(make_key(Table::replication), "", [&](std::string_view key, std::string_view) {
    targets.push_back(Ino{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (Ino ino : targets) {
    const auto inode = tree_.get(ino);
    if (!inode || progress_of(ino)) continue;
    const auto id = layer_to_fill(inode->image.layer);
    const auto layer = id ? store_.layers().get(*id) : fail(id.error());
    if (layer) add(ino, *layer, false, inode->image.error);
    else log::error("{} cannot be filled: {}", tree_.path_of(ino), describe(layer.error()));
  }
  return resume_orphans();
}

// An image whose content others have cloned, and that was written to since, goes on in a layer above the one to fill.
Result<LayerId> Filler::layer_to_fill(LayerId top) const {
  for (LayerId id = top;;) {
    RK_TRY_ASSIGN(const auto base, store_.layers().base_of(id));
    if (!base.id) return top;
    if (base.is_transformed) return id;
    id = base.id;
  }
}

// Layers that were being filled when their image went, and that clones still read from.
Status Filler::resume_orphans() {
  std::vector<LayerId> without_image;
  RK_TRY(store_.catalog().scan(make_key(Table::layer), "", [&](std::string_view key, std::string_view value) {
    const auto record = LayerRecord::decode(value);
    if (record && record->base && !record->owner) without_image.push_back(LayerId{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (const LayerId id : without_image) {
    {
      Lock lock(mutex_);
      if (jobs_.contains(id)) continue;
    }
    if (const Status resumed = resume_orphan(id); !resumed)
      log::error("layer {} cannot be filled: {}", id.value(), describe(resumed.error()));
  }
  return {};
}

Status Filler::resume_orphan(LayerId id) {
  RK_TRY_ASSIGN(const auto base, store_.layers().base_of(id));
  if (!base.is_transformed) return {};
  RK_TRY_ASSIGN(const bool cloned, has_clones(id));
  if (!cloned) return {};  // what reads from it transforms, and will not need it long
  RK_TRY_ASSIGN(const std::shared_ptr<blocks::Layer> layer, store_.layers().get(id));
  add(Ino{}, layer, false);
  return {};
}

Result<bool> Filler::has_clones(LayerId layer) const {
  RK_TRY_ASSIGN(const std::vector<LayerId> children, store_.layers().children_of(layer));
  for (const LayerId child : children) {
    RK_TRY_ASSIGN(const auto base, store_.layers().base_of(child));
    if (!base.is_transformed) return true;
  }
  return false;
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
    job->boot = boot_pieces(*layer);
    job->done_before = job->next * layer->block_size();
    job->stored_before = layer->stored();
    Lock lock(mutex_);
    jobs_.insert_or_assign(layer->id(), std::move(job));
    if (ino) by_image_.insert_or_assign(ino, layer->id());
  } catch (const std::bad_alloc&) {
    must_resume_.store(true);
  }
  background_.wake();
}

std::deque<Filler::Piece> Filler::boot_pieces(const blocks::Layer& layer) const {
  std::deque<Piece> pieces;
  const auto found = profiles_.find(layer.id());
  if (!found) return pieces;
  for (const boot::Run& run : found->profile.runs) {
    const BlockIndex end = run.end() * boot::BootProfile::kUnit / layer.block_size();
    for (BlockIndex first = run.first * boot::BootProfile::kUnit / layer.block_size(); first < end; first += kStep)
      pieces.push_back({first, std::min(first + kStep, end), false});
  }
  return pieces;
}

Filler::JobPtr Filler::job_of(Ino ino) const {
  const auto found = by_image_.find(ino);
  if (found == by_image_.end()) return nullptr;
  const auto job = jobs_.find(found->second);
  return job == jobs_.end() ? nullptr : job->second;
}

void Filler::let_go(Ino ino) {
  {
    Lock lock(mutex_);
    if (const JobPtr job = job_of(ino)) job->held = false;
  }
  background_.wake();
}

void Filler::forget(Ino ino) {
  {
    Lock lock(mutex_);
    const JobPtr job = job_of(ino);
    by_image_.erase(ino);
    if (!job) return;
    job->ino = Ino{};
    job->held = false;
    // What reads from it and transforms will not need it long.
    if (!has_clones(job->layer->id()).value_or(true)) jobs_.erase(job->layer->id());
  }
  background_.wake();
}

// It may be another one's by now.
void Filler::drop(const JobPtr& job) {
  Lock lock(mutex_);
  const auto found = jobs_.find(job->layer->id());
  if (found == jobs_.end() || found->second != job) return;
  if (const auto image = by_image_.find(job->ino); image != by_image_.end() && image->second == found->first) by_image_.erase(image);
  jobs_.erase(found);
}

Ino Filler::image_of(const Job& job) const {
  Lock lock(mutex_);
  return job.ino;
}

std::uint64_t Filler::end_of(const Job& job) {
  return (job.layer->size() + job.layer->block_size() - 1) / job.layer->block_size();
}

std::vector<Filler::Progress> Filler::progress() const {
  std::vector<Progress> all;
  Lock lock(mutex_);
  for (const auto& [ino, layer] : by_image_)
    if (const JobPtr job = job_of(ino)) all.push_back(progress_of(*job));
  return all;
}

std::optional<Filler::Progress> Filler::progress_of(Ino ino) const {
  Lock lock(mutex_);
  const JobPtr job = job_of(ino);
  return job ? std::optional(progress_of(*job)) : std::nullopt;
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
  const JobPtr job = job_of(ino);
  return job ? std::optional(job->error) : std::nullopt;
}

// --- working ---------------------------------------------------------------------------------------------------

// Reading a foreign format takes a process: of these jobs only the oldest few are at work at a time. Those that fail, or
// wait for the rest of their copy, hold up nobody.
LayerId Filler::last_wrapped_at_work() const {
  std::size_t wrapped = 0;
  for (const auto& [layer, job] : jobs_) {
    const bool waits = job->held && job->next >= end_of(*job);
    if (is_wrapped(*job->layer) && job->error.empty() && !waits && ++wrapped == kMostWrapped) return layer;
  }
  return LayerId{std::numeric_limits<std::uint64_t>::max()};
}

// The job after the last one served that has something to do now.
Filler::JobPtr Filler::next_job() {
  const LayerId last_wrapped = last_wrapped_at_work();
  auto at = jobs_.upper_bound(last_);
  for (std::size_t i = 0; i < jobs_.size(); ++i, ++at) {
    if (at == jobs_.end()) at = jobs_.begin();
    const JobPtr& job = at->second;
    if (job->finishing || job->retry_at > Clock::now()) continue;
    if (at->first > last_wrapped && is_wrapped(*job->layer)) continue;
    if (job->next < end_of(*job) || (!job->held && job->in_hand.empty())) {
      last_ = job->layer->id();
      return job;
    }
  }
  return nullptr;
}

// What makes readers wait is not only the processor: the disk, and the process that reads a foreign format.
void Filler::give_way() const {
  for (int turn = 0; turn < kMostTurns && readers_.are_busy() && background_.is_running(); ++turn) std::this_thread::sleep_for(kGiveWay);
}

Background::Duration Filler::step() {
  resume_forgotten();
  JobPtr job;
  Piece piece;
  bool last = false;
  {
    Lock lock(mutex_);
    job = next_job();
    if (!job) return jobs_.empty() && !must_resume_.load() ? Background::kUntilWoken : kLook;
    last = job->next >= end_of(*job);
    if (last) job->finishing = true;
    else piece = take_piece(*job);
  }
  if (last) {
    finish(job);
  } else {
    give_way();
    fill_some(job, piece);
  }
  return Background::Duration::zero();
}

Filler::Piece Filler::take_piece(Job& job) {
  Piece piece{job.next, job.next + kStep};
  if (!job.boot.empty()) {
    piece = job.boot.front();
    job.boot.pop_front();
  } else {
    job.next = piece.end;
  }
  job.in_hand.insert(piece.first);
  return piece;
}

void Filler::fill_some(const JobPtr& job, const Piece& piece) {
  BlockIndex index = piece.first;
  const Status status = caught([&]() -> Status {
    RK_TRY(store_.health().is_sound());
    return fill_from(*job, index, piece.end);
  });
  if (status) recovered(job, piece.first, piece.end);
  else failed(job, piece.first, status.error());
  {
    Lock lock(mutex_);
    job->in_hand.erase(job->in_hand.find(piece.first));
    if (!status) job->next = std::min(job->next, piece.first);
    else if (piece.is_in_order) job->next = std::max(job->next, index);  // a run of holes is passed at once
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
  {
    Lock lock(mutex_);
    job->finishing = false;
  }
  if (status) drop(job);
}

// Once more from the start: extents may have been copied in behind the workers. Passes what is done quickly.
Status Filler::fill_rest(const Job& job) {
  for (BlockIndex index = 0;;) {
    RK_TRY_ASSIGN(const std::uint64_t done, job.layer->fill(index, kStep));
    if (done == 0) return {};
    index += done;
  }
}

// From here on the layer stands alone. Its blocks are durable before the record that says so, and the base goes only
// after that record is.
Status Filler::complete(const Job& job) {
  RK_TRY(store_.checkpointer().sync_journal({job.layer}));
  const Ino ino = image_of(job);
  const std::string path = tree_.path_of(ino);
  RK_TRY_ASSIGN(const bool is_complete, record_completion(job, ino));
  if (!is_complete) return {};
  job.layer->keep_reads(false);
  job.layer->drop_base();
  if (!ino) return {};
  log::info("{} is complete", path);
  if (completed_) completed_(ino);
  return {};
}

Result<bool> Filler::record_completion(const Job& job, Ino ino) {
  const LayerId filled = job.layer->id();
  Event event = event_of(job, ino, EventKind::replication_completed);
  std::vector<blocks::LayerRegistry::Released> released;
  {
    catalog::WriteTxn txn(store_.catalog());
    const auto record = store_.layers().record_of(filled);
    if (!record) return false;        // deleted meanwhile
    if (!record->base) return true;  // by an attempt that failed later
    if (ino) RK_TRY(become_normal(txn, ino, filled, std::move(event)));
    RK_TRY_ASSIGN(released, store_.layers().detach(txn, filled));
    RK_TRY(txn.commit());
  }
  store_.layers().forget(released);
  return true;
}

Status Filler::become_normal(catalog::WriteTxn& txn, Ino ino, LayerId filled, Event event) {
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, ino));
  RK_TRY_ASSIGN(const LayerId awaited, layer_to_fill(inode.image.layer));
  if (awaited != filled) return {};  // its content was replaced meanwhile
  // It stands alone in both; in the first all is known of it, too.
  inode.image.state = inode.image.findings ? ImageState::normal : ImageState::normal_uninitialized;
  inode.image.error.clear();
  if (inode.image.lineage) inode.image.lineage->completed = now();
  names::Tree::put(txn, ino, inode);
  txn.erase(make_key(Table::replication, ino.value()));
  return audit_.add(txn, std::move(event));
}

// Made before a transaction: the key service is asked.
Event Filler::event_of(const Job& job, Ino ino, EventKind kind) const {
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
    if (!job.has_failed) event.nanoseconds = static_cast<std::uint64_t>((Clock::now() - job.begun) / 1ns);
  }
  return event;
}

Status Filler::record_error(const Job& job, const std::string& message) {
  const Ino ino = image_of(job);
  if (!ino) return {};
  Event event = event_of(job, ino, message.empty() ? EventKind::replication_recovered : EventKind::replication_failed);
  event.text = message;
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, ino));
  RK_TRY_ASSIGN(const LayerId awaited, layer_to_fill(inode.image.layer));
  if (awaited != job.layer->id()) return {};
  inode.image.state = message.empty() ? ImageState::replicating : ImageState::error;
  inode.image.error = message;
  names::Tree::put(txn, ino, inode);
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
  if (error.code == Errc::stale) return drop(job);  // deleted
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
  const Ino ino = image_of(*job);
  log::error("replication of {}: {}", ino ? tree_.path_of(ino) : "a deleted image that has clones", message);
  return record_error(*job, message);
}

}  // namespace rekeyfs::replication
