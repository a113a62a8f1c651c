// Initializer: finds out an image's format and digest once it has been left alone for two seconds, and makes it
// `normal`. What fails for a cause that passes (a disabled key, a full disk) is tried again, at growing intervals. One
// background thread at the lowest priority. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "engine/base/background.h"
#include "engine/namespace/tree.h"
#include "engine/store/store.h"

namespace rekeyfs::images {

class Initializer {
 public:
  Initializer(store::Store& store, const names::Tree& tree);
  // Called for an image that is to become the disk in it (fast create), before it is examined. Before start().
  void set_disk_wanted(std::function<Status(Ino)> disk_wanted) { disk_wanted_ = std::move(disk_wanted); }
  // Whether a virtual machine has the image open: then it is not read through beside it. Before start().
  void set_is_running(std::function<bool(Ino)> is_running) { is_running_ = std::move(is_running); }
  Status start();  // takes up every image on record that still needs it
  void stop() { background_.stop(); }

  void touched(Ino ino);  // written or made just now: the two seconds start again
  void completed(Ino ino);  // a replica needs its source no more: it is examined next, if its digest is not known
  // Its content changes: what is being found out about it is void. Called within the transaction of the change.
  void written(Ino ino);
  void forget(Ino ino);
  // Whether the image was written or made less than two seconds ago (or is still to be examined for the first time).
  bool is_awaited(Ino ino) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Visit {
    Ino ino;
    Clock::time_point at{};
    Clock::duration pause{};  // since the one before, which failed; 0: there was none
  };
  Background::Duration step();
  void visit(const Visit& due);
  bool must_look() const EXCLUDES(mutex_);
  Status find_unfinished();
  // In place of any other to the image. Never fails: what there is no memory for is found again by looking.
  void schedule(const Visit& visit) noexcept REQUIRES(mutex_);
  void unschedule(Ino ino) REQUIRES(mutex_);
  // The next visit, if it is due; else how long it is until then.
  std::pair<std::optional<Visit>, Clock::duration> next_visit() EXCLUDES(mutex_);
  void postpone(const Visit& failed, Clock::duration took) EXCLUDES(mutex_);
  void report(Ino ino, const Error& error);
  void begin(Ino ino);
  bool is_wanted(Ino ino) const;  // false when stopping, or written or touched since begin()
  Status initialize(Ino ino);
  // A clone that nobody has written to has its source's bytes.
  std::optional<names::Findings> inherited(const blocks::Layer& layer) const;
  Result<std::optional<names::Findings>> examine(Ino ino, const names::InodeRecord& inode, blocks::Layer& layer);

  store::Store& store_;
  const names::Tree& tree_;
  std::function<Status(Ino)> disk_wanted_;
  std::function<bool(Ino)> is_running_;
  mutable Mutex mutex_;
  std::map<Ino, Visit> due_ GUARDED_BY(mutex_);
  std::set<std::pair<Clock::time_point, Ino>> order_ GUARDED_BY(mutex_);  // of due_
  Ino examining_ GUARDED_BY(mutex_);  // none once it was written to
  bool must_look_ GUARDED_BY(mutex_) = true;  // through all images: it has not yet, or may have forgotten one
  std::optional<Errc> reported_;  // the thread's own: a cause that many images share is told once
  Background background_;
};

}  // namespace rekeyfs::images
