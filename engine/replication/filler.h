// Filler: the background workers that make replicas independent of their sources.
//
// A job is one layer that a replication made. The schedule says which few jobs are active. An active job is admitted when there
// is room for all of it beside the others that are; it waits for these if there is not, and fails if there is none beside
// nothing. So images become complete one after the other, each giving back what it was made from, and a full disk is not left
// with many parts. All workers transform an admitted job's blocks side by side; when none is left "from base" the layer is
// made durable, lets go of its base, and its image becomes `normal`. A job that fails says why in the image's `error`. It goes
// on without its image when that was deleted, or its content replaced, and clones still read from the layer. Thread-safe.
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
  // All outlive it.
  Filler(store::Store& store, const names::Tree& tree, const Readers& readers, const boot::BootProfiles& profiles, audit::AuditLog& audit);

  // Called, without a lock held, for each image that has become normal. Before start().
  void set_completed(std::function<void(Ino)> completed) { completed_ = std::move(completed); }
  // Takes up every replication on record. Before start().
  Status resume();
  Status start(unsigned workers);
  void stop() { background_.stop(); }  // after the blocks in hand

  // `asker` takes turns with others. `held`: more of the image is still being copied; it does not become normal before
  // let_go(). Never fails: without memory, the job is taken up later from its record.
  void add(Ino ino, const std::shared_ptr<blocks::Layer>& layer, uid_t asker, bool held, const std::string& error = {}) noexcept;
  void let_go(Ino ino);
  void forget(Ino ino);  // deleted, or its content replaced
  void key_enabled();    // what waits for a key is tried again at once

  std::vector<Progress> progress() const;
  std::optional<Progress> progress_of(Ino ino) const;  // none if there is no such replication
  // Why a replication does not go on, empty if it does; none if there is no such replication. The record may lag
  // behind: what stops a replication may stop its record, too.
  std::optional<std::string> error_of(Ino ino) const;

 private:
  using Clock = FillJob::Clock;
  using JobPtr = std::shared_ptr<FillJob>;
  using Piece = FillJob::Piece;
  struct Admitted {
    std::uint64_t bytes_needed = 0;  // when it was admitted, at most
    std::uint64_t stored_before = 0;
  };
  // What a worker does next.
  struct Turn {
    enum class Kind { rest, find_room, fill, finish };
    Kind kind = Kind::rest;
    JobPtr job;
    Piece piece;
    Background::Duration rest{};
  };

  Background::Duration step();
  Turn next_turn() EXCLUDES(mutex_);
  // What there is to do for an active job; Kind::rest: nothing now.
  Turn turn_of(const JobPtr& job) REQUIRES(mutex_);
  // Those that are not active lose their room: nobody may wait for them.
  void keep_admitted(const std::vector<LayerId>& active) REQUIRES(mutex_);
  void withdraw(LayerId layer) noexcept REQUIRES(mutex_);
  Background::Duration longest_rest() const REQUIRES(mutex_);
  void give_way() const;
  void resume_forgotten();
  void look_for_space() EXCLUDES(mutex_);

  // filling.cpp
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
  // Neither fails, whatever happens to what they write down.
  void failed(const JobPtr& job, BlockIndex at, const Error& error) EXCLUDES(mutex_);
  void recovered(const JobPtr& job, BlockIndex from, BlockIndex to) EXCLUDES(mutex_);  // these blocks are done
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
  std::map<Ino, LayerId> by_image_ GUARDED_BY(mutex_);  // those of jobs_ that have an image
  Schedule schedule_ GUARDED_BY(mutex_);                // of jobs_
  std::map<LayerId, Admitted> admitted_ GUARDED_BY(mutex_);  // those of jobs_ for which there is room; active ones only
  bool awaits_room_ GUARDED_BY(mutex_) = false;  // an active job waits for one of these: no other one is let in before it
  Clock::time_point next_look_ GUARDED_BY(mutex_){};  // for space
  std::atomic<bool> must_resume_{false};     // a job was forgotten
  std::atomic<bool> has_given_back_{false};  // layers became garbage that goes with the next checkpoint
  Background background_;
};

}  // namespace rekeyfs::replication
