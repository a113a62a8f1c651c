// Filler: the background workers that make replicas independent of their sources.
//
// A job is one layer that a replication made: its blocks are transformed by all workers side by side, first what its boot
// profile names, then the others in the image's order; when none is left "from base" the layer is made durable, lets go of its base, and its image becomes `normal`. A
// job that fails says why in the image's `error` and is tried again every second until its cause has gone. It goes on
// without its image when that was deleted, or its content replaced, and clones still read from the layer. Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "engine/audit/audit_log.h"
#include "engine/base/background.h"
#include "engine/boot/boot_profiles.h"
#include "engine/namespace/tree.h"
#include "engine/replication/readers.h"
#include "engine/replication/replication_record.h"
#include "engine/store/store.h"
#include "engine/types/event.h"

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

  // `held`: more of the image is still being copied; it does not become normal before let_go().
  // Never fails: without memory, the job is taken up later from its record.
  void add(Ino ino, const std::shared_ptr<blocks::Layer>& layer, bool held, const std::string& error = {}) noexcept;
  void let_go(Ino ino);
  void forget(Ino ino);  // deleted, or its content replaced

  struct Progress {
    Ino ino;
    std::uint64_t done = 0, total = 0;  // bytes
    double rate = 0;                    // bytes a second since the job was taken up
    std::string error;
    double percent() const;             // 99.9 at most: 100 is for what is complete
  };
  std::vector<Progress> progress() const;
  std::optional<Progress> progress_of(Ino ino) const;  // none if there is no such replication
  // Why a replication does not go on, empty if it does; none if there is no such replication. The record may lag
  // behind: what stops a replication may stop its record, too.
  std::optional<std::string> error_of(Ino ino) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Piece {
    BlockIndex first = 0, end = 0;
    bool is_in_order = true;  // else of the boot profile
  };
  struct Job {
    Ino ino;  // the image it makes normal; none if that has gone on without the layer. Guarded by mutex_.
    std::shared_ptr<blocks::Layer> layer;
    bool held = false;
    bool finishing = false;
    std::deque<Piece> boot;           // of the boot profile, those nobody has been given
    BlockIndex next = 0;              // and in the image's order nobody has been given blocks from here on
    std::multiset<BlockIndex> in_hand;  // first blocks of what workers are at
    std::string error;
    BlockIndex failed_at = 0;  // with an error, which is over when this block is done, whatever others do meanwhile
    Clock::time_point retry_at{};
    Clock::time_point begun = Clock::now();
    std::uint64_t done_before = 0;  // bytes, when the job was taken up
    std::uint64_t stored_before = 0;  // bytes the layer held itself then
    bool has_failed = false;          // once: the time it took says nothing about this machine
  };
  using JobPtr = std::shared_ptr<Job>;

  Background::Duration step();
  void give_way() const;
  void resume_forgotten();
  Status resume_orphans();
  Status resume_orphan(LayerId id);
  Result<LayerId> layer_to_fill(LayerId top) const;
  Result<bool> has_clones(LayerId layer) const;
  JobPtr job_of(Ino ino) const REQUIRES(mutex_);
  Ino image_of(const Job& job) const EXCLUDES(mutex_);
  void drop(const JobPtr& job) EXCLUDES(mutex_);
  JobPtr next_job() REQUIRES(mutex_);
  LayerId last_wrapped_at_work() const REQUIRES(mutex_);
  void fill_some(const JobPtr& job, const Piece& piece);
  std::deque<Piece> boot_pieces(const blocks::Layer& layer) const;
  static Piece take_piece(Job& job);  // with mutex_ held
  Status fill_from(const Job& job, BlockIndex& index, BlockIndex end);
  void finish(const JobPtr& job);
  Status fill_rest(const Job& job);
  Status complete(const Job& job);
  // False if the layer is not needed any more.
  Result<bool> record_completion(const Job& job, Ino ino);
  Status become_normal(catalog::WriteTxn& txn, Ino ino, LayerId filled, Event event);
  Status record_error(const Job& job, const std::string& message);
  Event event_of(const Job& job, Ino ino, EventKind kind) const;
  // Neither fails, whatever happens to what they write down.
  void failed(const JobPtr& job, BlockIndex at, const Error& error);
  void recovered(const JobPtr& job, BlockIndex from, BlockIndex to);  // these blocks are done
  Status tell(const JobPtr& job, BlockIndex at, const std::string& message);
  static std::uint64_t end_of(const Job& job);
  static Progress progress_of(const Job& job);  // with mutex_ held

  store::Store& store_;
  const names::Tree& tree_;
  const Readers& readers_;
  const boot::BootProfiles& profiles_;
  std::function<void(Ino)> completed_;
  audit::AuditLog& audit_;
  mutable Mutex mutex_;
  std::map<LayerId, JobPtr> jobs_ GUARDED_BY(mutex_);
  std::map<Ino, LayerId> by_image_ GUARDED_BY(mutex_);  // those of jobs_ that have an image
  LayerId last_ GUARDED_BY(mutex_);  // the job served last: the others get their turn
  std::atomic<bool> must_resume_{false};  // a job was forgotten
  Background background_;
};

}  // namespace rekeyfs::replication
