// Filler: the background workers that make replicas independent of their sources.
//
// A job fills one layer that a replication created. The schedule chooses a few active jobs. An active job is admitted
// when there is space for all of it in addition to the jobs admitted already. Without enough space it waits for those
// jobs; if none is admitted, it fails. Images therefore complete one after the other, each freeing what it was made
// from, and a full disk does not end up with many incomplete ones. All workers transform blocks of admitted jobs in
// parallel. When no block is in state "base", the layer is made durable and releases its base, and its image becomes
// `normal`. The reason why a job failed is in the image's `error`. If the image is deleted or its content replaced
// while clones still read from the layer, the job continues without the image. Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "engine/base/background.h"
#include "engine/boot/boot_profiles.h"
#include "engine/replication/fill_job.h"
#include "engine/replication/job_records.h"
#include "engine/replication/readers.h"
#include "engine/replication/schedule.h"
#include "engine/replication/space_need.h"

namespace rekeyfs::replication {

class Filler {
 public:
  // All arguments must outlive it.
  Filler(store::Store& store, const names::Tree& tree, const Readers& readers, const boot::BootProfiles& profiles, audit::AuditLog& audit);

  // Called, without a lock held, for each image that has become normal. Set before start().
  void set_completed(std::function<void(Ino)> completed) { completed_ = std::move(completed); }
  // Takes up every recorded replication. Call before start().
  Status resume();
  // So many workers of one user; there are more, so that other users have some, too.
  Status start(unsigned workers);
  void stop() { background_.stop(); }  // returns when the blocks in progress are done

  // Users take turns by `asker`. Never fails: without memory, the job is taken up later from its record.
  void add(Ino ino, const std::shared_ptr<blocks::Layer>& layer, uid_t asker, const std::string& error = {}) noexcept;
  // From hold() to let_go() more may be copied into the layer, so its job is not completed, whether it is there already
  // or comes later. Each layer is held once at a time.
  void hold(LayerId layer);
  void let_go(LayerId layer) noexcept;
  void forget(Ino ino);  // the image was deleted or its content replaced
  void key_enabled();    // retries all jobs that wait for a key now

  std::vector<Progress> progress() const;
  std::optional<Progress> progress_of(Ino ino) const;  // nullopt if there is no such replication
  // Why a replication is suspended; empty if it is not; nullopt if there is no such replication. More current than the
  // record, because the cause may also prevent updating the record.
  std::optional<std::string> error_of(Ino ino) const;

 private:
  using Clock = FillJob::Clock;
  using JobPtr = std::shared_ptr<FillJob>;
  using Piece = FillJob::Piece;
  struct Admitted {
    std::uint64_t bytes_needed = 0;  // upper bound at the time of admission
    std::uint64_t stored_before = 0;
  };
  // The next action of a worker.
  struct Turn {
    enum class Kind { rest, find_room, fill, finish };
    Kind kind = Kind::rest;
    JobPtr job;
    Piece piece;
    Background::Duration rest{};
  };

  Background::Duration step();
  Turn next_turn() EXCLUDES(mutex_);
  void note_end_of(const Turn& turn) EXCLUDES(mutex_);
  bool is_served_fully(uid_t user) REQUIRES(mutex_);
  // The next action for an active job; Kind::rest: nothing now.
  Turn turn_of(const JobPtr& job) REQUIRES(mutex_);
  // Withdraws the admission of jobs that are not active, because no other job may have to wait for them.
  void keep_admitted(const std::vector<LayerId>& active) REQUIRES(mutex_);
  void withdraw(LayerId layer) noexcept REQUIRES(mutex_);
  Background::Duration longest_rest() const REQUIRES(mutex_);
  void give_way() const;
  void resume_forgotten();
  void look_for_space() EXCLUDES(mutex_);

  // Implemented in filling.cpp:
  void find_room(const JobPtr& job) EXCLUDES(mutex_);
  enum class Room { found, awaited, none };
  Result<Room> admit(const JobPtr& job, const SpaceNeed& need) EXCLUDES(mutex_);
  std::uint64_t bytes_left_of_admitted() const REQUIRES(mutex_);
  void fill(const JobPtr& job, const Piece& piece) EXCLUDES(mutex_);
  static Status fill_from(const FillJob& job, BlockIndex& index, BlockIndex end);
  void finish(const JobPtr& job) EXCLUDES(mutex_);
  void set_free(const JobPtr& job) EXCLUDES(mutex_);
  static Status fill_rest(const FillJob& job);
  Status complete(const JobPtr& job) EXCLUDES(mutex_);
  // These never fail, even if writing the records does.
  void failed(const JobPtr& job, BlockIndex at, const Error& error) EXCLUDES(mutex_);
  void recovered(const JobPtr& job, BlockIndex from, BlockIndex to) EXCLUDES(mutex_);  // the blocks [from, to) are done
  Status tell(const JobPtr& job, BlockIndex at, const std::string& message) EXCLUDES(mutex_);
  Schedule::Failure failure_of(const FillJob& job, Errc code);

  std::deque<Piece> boot_pieces(const blocks::Layer& layer) const;
  JobPtr job_of(Ino ino) const REQUIRES(mutex_);
  Ino image_of(const JobPtr& job) const EXCLUDES(mutex_);
  void drop(const JobPtr& job) EXCLUDES(mutex_);
  void erase(LayerId layer) noexcept REQUIRES(mutex_);

  store::Store& store_;
  const names::Tree& tree_;
  const Readers& readers_;
  const boot::BootProfiles& profiles_;
  JobRecords records_;
  std::function<void(Ino)> completed_;
  mutable Mutex mutex_;
  std::map<LayerId, JobPtr> jobs_ GUARDED_BY(mutex_);
  std::set<LayerId> held_ GUARDED_BY(mutex_);
  std::map<Ino, LayerId> by_image_ GUARDED_BY(mutex_);  // only those of jobs_ that have an image
  Schedule schedule_ GUARDED_BY(mutex_);                // contains all of jobs_
  unsigned workers_of_one_user_ = 0;                    // constant after start()
  std::map<uid_t, unsigned> at_work_ GUARDED_BY(mutex_);  // number of workers that have a turn, by `asker`
  std::map<LayerId, Admitted> admitted_ GUARDED_BY(mutex_);  // the active ones of jobs_ that have space
  // An active job waits for the admitted ones: no other is admitted before it.
  bool awaits_room_ GUARDED_BY(mutex_) = false;
  Clock::time_point next_look_ GUARDED_BY(mutex_){};  // next check of free space
  std::atomic<bool> must_resume_{false};     // a job was forgotten
  std::atomic<bool> has_given_back_{false};  // layers became garbage, which the next checkpoint removes
  Background background_;
};

}  // namespace rekeyfs::replication
