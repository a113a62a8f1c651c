// StoreClock: time as the store has seen it: for how long it has been open in all.
//
// What must not happen early because somebody set a clock waits for store time. Store time advances with CLOCK_BOOTTIME
// while the store is open for writing, and never by more than the wall clock did. Time during which the store is not
// open does not count: nothing tells it from a clock that was set forward. save() makes it durable; a kill takes it
// back to the last save, so it may lag but never leads.
//
// It also notices that the wall clock was set. Somebody has to call it now and then (KeyLife does): between two calls it
// cannot tell a clock that was set forward and back. Thread-safe.
#pragma once

#include <functional>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/catalog/catalog.h"

namespace rekeyfs::store {

class StoreClock {
 public:
  struct Reading {
    Timestamp wall = 0;  // CLOCK_REALTIME
    Timestamp boot = 0;  // CLOCK_BOOTTIME
  };
  using Source = std::function<Reading()>;
  static Reading read_system();

  // How the wall clock was set: what it should have shown, and what it shows.
  struct Jump {
    Timestamp expected = 0;
    Timestamp found = 0;
  };

  // `catalog` must outlive it.
  StoreClock(catalog::Catalog& catalog, Source source) : catalog_(catalog), source_(std::move(source)) {}

  // Continues from what was saved. Call once, before anything else. A wall clock that is behind the last one seen is a
  // jump; one that is ahead may be right.
  Status load() EXCLUDES(mutex_);
  // Not in a transaction.
  Status save() EXCLUDES(mutex_);

  Timestamp store_time() EXCLUDES(mutex_);  // nanoseconds
  Timestamp wall_time() EXCLUDES(mutex_);
  // The jump of the wall clock since the last call, if there was one.
  std::optional<Jump> take_jump() EXCLUDES(mutex_);
  // By how much the wall clock moved on between the last save before this mount and load().
  Timestamp gap() const EXCLUDES(mutex_);

 private:
  void advance() REQUIRES(mutex_);

  catalog::Catalog& catalog_;
  const Source source_;
  mutable Mutex mutex_;
  Reading last_ GUARDED_BY(mutex_);
  Timestamp time_ GUARDED_BY(mutex_) = 0;
  Timestamp gap_ GUARDED_BY(mutex_) = 0;
  std::optional<Jump> jump_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::store
