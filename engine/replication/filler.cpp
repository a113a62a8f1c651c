// The filler's jobs, and the choice of a worker's next action.
#include "engine/replication/filler.h"

#include <algorithm>
#include <new>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "engine/replication/pending.h"

namespace rekeyfs::replication {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t kStep = 64;  // blocks of a boot profile per piece: 1 MiB
constexpr Background::Duration kLookForSpace = 1s;
constexpr unsigned kUsersAtWork = 2;  // so that a source that hangs does not delay another user's replications
constexpr int kNice = 10;  // readers and writers have priority
constexpr auto kGiveWay = 1ms;
// Bound of the pauses for readers per 1 MiB: they slow down the filler but never stop it.
constexpr int kMaxTurns = 20;

}  // namespace

Filler::Filler(store::Store& store, const names::Tree& tree, const Readers& readers, const boot::BootProfiles& profiles, audit::AuditLog& audit)
    : store_(store), tree_(tree), readers_(readers), profiles_(profiles), records_(store, tree, audit), background_("filler", kNice) {}

// --- jobs ------------------------------------------------------------------------------------------------------

Status Filler::resume() {
  RK_TRY_ASSIGN(const std::vector<Pending> pending, list_pending(store_, tree_));
  for (const Pending& one : pending) {
    {
      Lock lock(mutex_);
      if (jobs_.contains(one.layer)) continue;
    }
    const auto layer = store_.layers().get(one.layer);
    if (layer) add(one.ino, *layer, one.asker, one.error);
    else
      log::error("cannot resume the replication of layer {}: {}", one.layer.value(), describe(layer.error()));
  }
  return {};
}

// For jobs dropped for lack of memory: their replications are on record.
void Filler::resume_forgotten() {
  if (!must_resume_.exchange(false)) return;
  const Status resumed = caught([&] { return resume(); });
  if (resumed) return;
  must_resume_.store(true);
  log::error("cannot list replications: {}", resumed.error().message);
}

Status Filler::start(unsigned workers) {
  workers_of_one_user_ = workers;
  return background_.start([this] { return step(); }, kUsersAtWork * workers);
}

void Filler::add(Ino ino, const std::shared_ptr<blocks::Layer>& layer, uid_t asker, const std::string& error) noexcept {
  layer->keep_reads(true);
  layer->set_asker(asker);
  const LayerId id = layer->id();
  try {
    auto job = std::make_shared<FillJob>(ino, layer, asker, error, boot_pieces(*layer));
    Lock lock(mutex_);
    job->held = held_.contains(id);
    erase(id);
    try {
      schedule_.add(id, asker);
      jobs_.emplace(id, std::move(job));
      if (ino) by_image_.insert_or_assign(ino, id);
    } catch (const std::bad_alloc&) {
      erase(id);
      throw;
    }
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

void Filler::hold(LayerId layer) {
  Lock lock(mutex_);
  held_.insert(layer);
  if (const auto job = jobs_.find(layer); job != jobs_.end()) job->second->held = true;
}

void Filler::let_go(LayerId layer) noexcept {
  {
    Lock lock(mutex_);
    held_.erase(layer);
    const auto job = jobs_.find(layer);
    if (job == jobs_.end()) return;
    job->second->held = false;
    schedule_.resume(layer);
  }
  background_.wake();
}

void Filler::forget(Ino ino) {
  LayerId layer;
  {
    Lock lock(mutex_);
    const JobPtr job = job_of(ino);
    by_image_.erase(ino);
    if (!job) return;
    layer = job->layer->id();
    job->ino = Ino{};
    job->held = false;
    schedule_.resume(layer);
  }
  // Layers above that transform its blocks need it for a short time only.
  const bool is_needed = has_clones(store_.layers(), layer).value_or(true);
  {
    Lock lock(mutex_);
    const auto job = jobs_.find(layer);
    if (!is_needed && job != jobs_.end() && !job->second->ino) erase(layer);
  }
  background_.wake();
}

void Filler::key_enabled() {
  {
    Lock lock(mutex_);
    schedule_.key_enabled();
  }
  background_.wake();
}

// The entry may belong to another job by now.
void Filler::drop(const JobPtr& job) {
  Lock lock(mutex_);
  const auto found = jobs_.find(job->layer->id());
  if (found != jobs_.end() && found->second == job) erase(found->first);
}

void Filler::erase(LayerId layer) noexcept {
  const auto found = jobs_.find(layer);
  if (found != jobs_.end()) {
    if (const auto image = by_image_.find(found->second->ino); image != by_image_.end() && image->second == layer) by_image_.erase(image);
    jobs_.erase(found);
  }
  schedule_.remove(layer);
  withdraw(layer);
}

void Filler::withdraw(LayerId layer) noexcept {
  if (admitted_.erase(layer) > 0) awaits_room_ = false;
}

void Filler::keep_admitted(const std::vector<LayerId>& active) {
  for (auto next = admitted_.begin(); next != admitted_.end();) {
    const LayerId layer = (next++)->first;
    if (std::find(active.begin(), active.end(), layer) == active.end()) withdraw(layer);
  }
}

Ino Filler::image_of(const JobPtr& job) const {
  Lock lock(mutex_);
  return job->ino;
}

std::vector<Progress> Filler::progress() const {
  std::vector<Progress> all;
  Lock lock(mutex_);
  for (const auto& [ino, layer] : by_image_)
    if (const JobPtr job = job_of(ino)) all.push_back(job->progress());
  return all;
}

std::optional<Progress> Filler::progress_of(Ino ino) const {
  Lock lock(mutex_);
  const JobPtr job = job_of(ino);
  return job ? std::optional(job->progress()) : std::nullopt;
}

std::optional<std::string> Filler::error_of(Ino ino) const {
  Lock lock(mutex_);
  const JobPtr job = job_of(ino);
  return job ? std::optional(job->error) : std::nullopt;
}

// --- what a worker does next -----------------------------------------------------------------------------------

// Readers compete not only for the processor, but also for the disk and for the process that reads a disk format.
void Filler::give_way() const {
  for (int turn = 0; turn < kMaxTurns && readers_.are_busy() && background_.is_running(); ++turn) std::this_thread::sleep_for(kGiveWay);
}

Background::Duration Filler::step() {
  resume_forgotten();
  look_for_space();
  const Turn turn = next_turn();
  switch (turn.kind) {
    case Turn::Kind::rest: return turn.rest;
    case Turn::Kind::find_room: find_room(turn.job); break;
    case Turn::Kind::fill:
      give_way();
      fill(turn.job, turn.piece);
      break;
    case Turn::Kind::finish: finish(turn.job); break;
  }
  note_end_of(turn);
  return Background::Duration::zero();
}

void Filler::note_end_of(const Turn& turn) {
  Lock lock(mutex_);
  --at_work_.at(turn.job->asker);
}

Filler::Turn Filler::next_turn() {
  Lock lock(mutex_);
  std::erase_if(at_work_, [](const auto& user) { return user.second == 0; });
  for (bool again = true; std::exchange(again, false);) {
    const std::vector<LayerId> active = schedule_.active(Clock::now());
    keep_admitted(active);
    for (const LayerId id : active) {
      const JobPtr& job = jobs_.at(id);
      if (is_served_fully(job->asker)) continue;
      const Turn turn = turn_of(job);
      if (turn.kind != Turn::Kind::rest) {
        ++at_work_.at(job->asker);
        schedule_.served(id);
        return turn;
      }
      if (!job->held || job->busy || job->has_pieces() || !job->in_hand.empty()) continue;
      schedule_.pause(id);  // until the rest of the copy has arrived
      again = true;         // another job gets its place
    }
  }
  Turn rest;
  rest.rest = longest_rest();
  return rest;
}

// Makes the user's entry, too: after a turn was taken, nothing may fail.
bool Filler::is_served_fully(uid_t user) {
  return at_work_.try_emplace(user, 0).first->second >= workers_of_one_user_;
}

Filler::Turn Filler::turn_of(const JobPtr& job) {
  Turn turn;
  turn.job = job;
  if (job->busy) return turn;
  if (!admitted_.contains(job->layer->id())) {
    if (awaits_room_) return turn;
    turn.kind = Turn::Kind::find_room;
    job->busy = true;
  } else if (job->has_pieces()) {
    turn.kind = Turn::Kind::fill;
    turn.piece = job->take_piece();
  } else if (!job->held && job->in_hand.empty()) {
    turn.kind = Turn::Kind::finish;
    job->busy = true;
  }
  return turn;
}

Background::Duration Filler::longest_rest() const {
  Background::Duration rest = must_resume_.load() ? kLookForSpace : Background::kUntilWoken;
  if (schedule_.waits_for_space()) rest = std::min(rest, kLookForSpace);
  if (const auto end = schedule_.next_end()) rest = std::min<Background::Duration>(rest, *end - Clock::now());
  return std::max(rest, Background::Duration::zero());
}

void Filler::look_for_space() {
  {
    Lock lock(mutex_);
    if (!schedule_.waits_for_space() || Clock::now() < next_look_) return;
    next_look_ = Clock::now() + kLookForSpace;
  }
  const auto space = store_.storage().space();
  if (!space) return;
  Lock lock(mutex_);
  schedule_.space_is(space->available);
}

}  // namespace rekeyfs::replication
