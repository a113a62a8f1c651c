// The actions of the filler's workers: find space for a job, fill its layer, complete it.
#include <algorithm>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "engine/replication/filler.h"

namespace rekeyfs::replication {
namespace {

constexpr std::uint64_t kStep = 64;  // blocks per step of the final pass

std::string mib_text(std::uint64_t bytes) { return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB"; }

}  // namespace

// --- room ------------------------------------------------------------------------------------------------------

void Filler::find_room(const JobPtr& job) {
  const Status looked = caught([&]() -> Status {
    RK_TRY_ASSIGN(const SpaceNeed need, space_left_to_fill(store_.layers(), *job->layer));
    RK_TRY_ASSIGN(Room room, admit(job, need));
    if (room != Room::found && has_given_back_.exchange(false)) {  // the next checkpoint frees their space
      RK_TRY(store_.checkpointer().run());
      RK_TRY_ASSIGN(room, admit(job, need));
    }
    if (room != Room::none) return {};
    return fail(Errc::no_space, "No space left on device: all of it takes up to " + mib_text(need.most + job->layer->stored()) +
                                    ", and there is not room for the rest; delete images, or make room on the disk of the store");
  });
  BlockIndex next = 0;
  {
    Lock lock(mutex_);
    next = job->next;
  }
  if (!looked) failed(job, next, looked.error());
  set_free(job);
}

// Other workers may get the job again.
void Filler::set_free(const JobPtr& job) {
  {
    Lock lock(mutex_);
    job->busy = false;
  }
  background_.wake();
}

Result<Filler::Room> Filler::admit(const JobPtr& job, const SpaceNeed& need) {
  RK_TRY_ASSIGN(const io::Space space, store_.storage().space());
  Lock lock(mutex_);
  const auto there = jobs_.find(job->layer->id());
  // The job was forgotten and gets no further turn.
  if (there == jobs_.end() || there->second != job) return Room::found;
  const std::uint64_t promised = bytes_left_of_admitted();
  const std::uint64_t free = space.available - std::min(space.available, promised);
  const bool is_alone = admitted_.empty();
  if (need.most > free && !(is_alone && need.least <= free)) {
    awaits_room_ = !is_alone;
    return is_alone ? Room::none : Room::awaited;
  }
  admitted_.insert_or_assign(there->first, Admitted{need.most, job->layer->stored()});
  return Room::found;
}

std::uint64_t Filler::bytes_left_of_admitted() const {
  std::uint64_t left = 0;
  for (const auto& [layer, admitted] : admitted_) {
    const std::uint64_t stored = jobs_.at(layer)->layer->stored();
    const std::uint64_t done = stored - std::min(stored, admitted.stored_before);
    left += admitted.bytes_needed - std::min(admitted.bytes_needed, done);
  }
  return left;
}

// --- filling ---------------------------------------------------------------------------------------------------

void Filler::fill(const JobPtr& job, const Piece& piece) {
  BlockIndex index = piece.first;
  const Status status = caught([&]() -> Status {
    RK_TRY(store_.health().is_sound());
    return fill_from(*job, index, piece.end);
  });
  if (status) recovered(job, piece.first, piece.end);
  else failed(job, piece.first, status.error());
  {
    Lock lock(mutex_);
    job->give_back(piece, index, status.has_value());
    const Status noted = caught([&]() -> Status {
      job->layer->set_filled(job->filled());
      return {};
    });
    if (!noted) log::debug("{}", noted.error().message);  // the recorded progress only saves time after a mount
  }
  background_.wake();
}

// Advances `index` to `end`, or further if the following blocks need no work.
Status Filler::fill_from(const FillJob& job, BlockIndex& index, BlockIndex end) {
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
    recovered(job, 0, job->end());
    status = caught([&] { return complete(job); });
    failed_at = job->end();  // not caused by a single block
  }
  if (status) drop(job);
  else failed(job, failed_at, status.error());
  set_free(job);
}

// The final pass from the start, because copied pieces may have added "base" blocks behind the workers. Skips finished
// blocks quickly.
Status Filler::fill_rest(const FillJob& job) {
  for (BlockIndex index = 0;;) {
    RK_TRY_ASSIGN(const std::uint64_t done, job.layer->fill(index, kStep));
    if (done == 0) return {};
    index += done;
  }
}

// From here on the layer stands alone. Its blocks become durable before the record that says so; the base is released
// only after that record is committed.
Status Filler::complete(const JobPtr& job) {
  RK_TRY(store_.checkpointer().sync_journal({job->layer}));
  const Ino ino = image_of(job);
  const std::string path = tree_.path_of(ino);
  RK_TRY_ASSIGN(const auto released, records_.complete(*job, ino));
  if (!released) return {};
  if (*released > 0) has_given_back_.store(true);
  job->layer->keep_reads(false);
  job->layer->drop_base();
  if (!ino) return {};
  log::info("replication of {} is complete", path);
  if (completed_) completed_(ino);
  return {};
}

// --- failures --------------------------------------------------------------------------------------------------

void Filler::recovered(const JobPtr& job, BlockIndex from, BlockIndex to) {
  Ino ino;
  {
    Lock lock(mutex_);
    if (job->error.empty() || job->failed_at < from || job->failed_at >= to) return;
    job->error.clear();
    schedule_.succeeded(job->layer->id());
    ino = job->ino;
  }
  const Status status = caught([&] { return records_.put_error(*job, ino, ""); });
  if (!status) log::error("{}", status.error().message);
}

void Filler::failed(const JobPtr& job, BlockIndex at, const Error& error) {
  if (error.code == Errc::stale) return drop(job);  // the image was deleted
  const Schedule::Failure failure = failure_of(*job, error.code);
  {
    Lock lock(mutex_);
    if (const auto found = jobs_.find(job->layer->id()); found != jobs_.end() && found->second == job) {
      withdraw(found->first);
      const Status rests = caught([&]() NO_THREAD_SAFETY_ANALYSIS -> Status {
        schedule_.failed(found->first, failure, Clock::now());
        return {};
      });
      if (!rests) log::debug("{}", rests.error().message);  // retried immediately
    }
  }
  const Status told =
      caught([&] { return tell(job, at, describe(error) + "; rekeyfs resumes it when the cause is gone"); });
  if (!told) log::error("{}", told.error().message);
}

Schedule::Failure Filler::failure_of(const FillJob& job, Errc code) {
  Schedule::Failure failure;
  if (code == Errc::key_revoked || code == Errc::no_key) failure.cause = Schedule::Failure::Cause::key;
  if (code != Errc::no_space) return failure;
  failure.cause = Schedule::Failure::Cause::space;
  if (const auto need = space_left_to_fill(store_.layers(), *job.layer)) failure.bytes_needed = need->least;
  if (const auto space = store_.storage().space()) failure.bytes_free = space->available;
  return failure;
}

Status Filler::tell(const JobPtr& job, BlockIndex at, const std::string& message) {
  Ino ino;
  {
    Lock lock(mutex_);
    job->failed_at = job->error.empty() ? at : std::min(at, job->failed_at);
    if (job->error == message) return {};
    job->error = message;
    job->has_failed = true;
    ino = job->ino;
  }
  log::error("replication of {}: {}", ino ? tree_.path_of(ino) : "a deleted image that has clones", message);
  return records_.put_error(*job, ino, message);
}

}  // namespace rekeyfs::replication
