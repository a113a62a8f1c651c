// Initializer: determines an image's format and digest after two seconds without writes, and then makes it `normal`.
//
// Background threads with the lowest priority read a slice of one image after the other: users in turn, and a user's
// small images first. So an image that takes hours delays no other one but its owner's larger ones. Work that fails for
// a transient reason (a disabled key, a full disk) is retried at growing intervals. What was read of an image is
// forgotten when the image changes or goes, and with the process. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "engine/base/background.h"
#include "engine/images/examination_turns.h"
#include "engine/namespace/tree.h"
#include "engine/store/store.h"

namespace rekeyfs::images {

class Initializer {
 public:
  Initializer(store::Store& store, const names::Tree& tree);
  // Called before an image is examined, if fast create must turn it into the disk in it. Set before start().
  void set_disk_wanted(std::function<Status(Ino)> disk_wanted) { disk_wanted_ = std::move(disk_wanted); }
  // Whether a virtual machine has the image open; such an image is not examined. Set before start().
  void set_is_running(std::function<bool(Ino)> is_running) { is_running_ = std::move(is_running); }
  Status start();  // schedules every recorded image that was not examined yet
  void stop() { background_.stop(); }

  void touched(Ino ino);  // the image was written or created just now: restarts its two seconds
  void completed(Ino ino);  // A replica no longer needs its source: examines it next if its digest is unknown.
  // The content changes: ends an examination, because touched() follows. Called in the transaction of the change.
  void written(Ino ino);
  void forget(Ino ino);
  // Whether the image was written or created less than two seconds ago or its examination has not begun.
  bool is_awaited(Ino ino) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Visit {
    Ino ino;
    Clock::time_point at{};
    Clock::duration pause{};  // since the previous, failed visit; 0: there was none
  };
  Background::Duration step();
  void work_on(const ExaminationTurns::Item& examination) EXCLUDES(mutex_);
  bool must_look() const EXCLUDES(mutex_);
  Status find_unfinished();
  // Replaces any visit scheduled for the image. Never fails: without memory, the image is found again by the next full
  // scan.
  void schedule(const Visit& visit) noexcept REQUIRES(mutex_);
  void unschedule(Ino ino) REQUIRES(mutex_);
  // Gives the images whose time has come their turns. Returns how long it is until the next one's.
  Clock::duration begin_due() EXCLUDES(mutex_);
  std::vector<Visit> take_due() EXCLUDES(mutex_);
  void begin(const Visit& due) EXCLUDES(mutex_);
  void postpone(const Examination& failed, Clock::duration took) EXCLUDES(mutex_);
  void report(Ino ino, const Error& error) EXCLUDES(mutex_);
  // False when stopping, or if the image was written, touched or forgotten since the examination began.
  bool is_wanted(const Examination& examination) const EXCLUDES(mutex_);
  // Works for the time of a slice. False if more is left.
  Result<bool> examine(Examination& examination);
  Status begin_reading(Examination& examination, const names::InodeRecord& inode, blocks::Layer& layer);
  Result<bool> read_slice(Examination& examination, blocks::Layer& layer);
  Status record(const Examination& examination, LayerId layer, const names::Findings& findings);
  // The findings of the source, which are valid for a clone that was never written.
  std::optional<names::Findings> inherited(const blocks::Layer& layer) const;

  store::Store& store_;
  const names::Tree& tree_;
  std::function<Status(Ino)> disk_wanted_;
  std::function<bool(Ino)> is_running_;
  mutable Mutex mutex_;
  std::map<Ino, Visit> due_ GUARDED_BY(mutex_);
  std::set<std::pair<Clock::time_point, Ino>> order_ GUARDED_BY(mutex_);  // index of due_ by time
  ExaminationTurns turns_ GUARDED_BY(mutex_);  // of images that are no longer in due_
  bool must_look_ GUARDED_BY(mutex_) = true;  // scan all images: not done yet, or one may have been forgotten
  std::optional<Errc> reported_ GUARDED_BY(mutex_);  // logs a cause shared by many images once
  Background background_;
};

}  // namespace rekeyfs::images
