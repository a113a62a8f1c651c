// Account: the quota of one directory, and what counts towards it. Charge: what one change adds, while it is made.
//
// The usage is what the last walk has found, plus what was added since: an upper bound, because what was deleted since
// still counts. A change is charged before it is made and becomes part of what was added when its Charge ends. A walk
// forgets only what had ended before it began; a change that it may not have seen counts until the next one.
// Thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/namespace/inode_record.h"
#include "engine/quota/usage.h"

namespace rekeyfs::quota {

class Account {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Account(Ino at) : directory(at) {}

  const Ino directory;
  // Held during a walk: callers that need one share it.
  Mutex walking;

  void set_limits(const names::Quota& limits) EXCLUDES(mutex_);
  names::Quota limits() const EXCLUDES(mutex_);
  // Counts the change as under way if it fits.
  bool take(const Usage& more) EXCLUDES(mutex_);
  void end(const Usage& more, bool was_made) EXCLUDES(mutex_);
  // Whether the last walk alone shows that the change does not fit.
  bool is_known_full(const Usage& more) const EXCLUDES(mutex_);
  Usage used() const EXCLUDES(mutex_);

  // One walk: begin() before, counted() after it. `shifts` tells later whether usage moved between directories.
  struct Walk {
    Clock::time_point began;
    Usage forgotten;
    std::uint64_t shifts = 0;
  };
  Walk begin(std::uint64_t shifts) const EXCLUDES(mutex_);
  void counted(const Walk& walk, const Usage& found) EXCLUDES(mutex_);
  bool was_walked_since(Clock::time_point time) const EXCLUDES(mutex_);
  bool is_known() const EXCLUDES(mutex_);
  // Whether usage may have moved between directories since the last walk.
  bool is_outdated(std::uint64_t shifts) const EXCLUDES(mutex_);
  // Whether another walk is allowed now, as one of many: walks take a tenth of the time of one thread.
  bool has_rested(Clock::duration most) const EXCLUDES(mutex_);

 private:
  bool fits(const Usage& used, const Usage& more) const REQUIRES(mutex_);

  mutable Mutex mutex_;
  names::Quota limits_ GUARDED_BY(mutex_);
  Usage counted_ GUARDED_BY(mutex_);    // found by the last walk
  Usage added_ GUARDED_BY(mutex_);      // by changes that ended since
  Usage under_way_ GUARDED_BY(mutex_);  // by changes that have not ended
  bool known_ GUARDED_BY(mutex_) = false;
  std::uint64_t shifts_ GUARDED_BY(mutex_) = 0;
  Clock::time_point began_ GUARDED_BY(mutex_), ended_ GUARDED_BY(mutex_);
};

using Accounts = std::vector<std::shared_ptr<Account>>;

class [[nodiscard]] Charge {
 public:
  Charge() = default;  // of nothing
  Charge(Charge&& other) noexcept : parts_(std::exchange(other.parts_, {})) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge() { end(true); }
  // The change was not made.
  void withdraw() { end(false); }

 private:
  friend class QuotaBook;
  struct Part {
    std::shared_ptr<Account> account;
    Usage more;
  };
  void end(bool was_made) {
    for (const Part& part : std::exchange(parts_, {})) part.account->end(part.more, was_made);
  }

  std::vector<Part> parts_;
};

// The quotas that an open image counts in, kept with it until something moves.
class Membership {
 private:
  friend class QuotaBook;
  Mutex mutex_;
  std::uint64_t generation_ GUARDED_BY(mutex_) = 0;  // 0: not looked up yet
  Accounts accounts_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::quota
