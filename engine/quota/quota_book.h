// QuotaBook: the quotas of directories: what counts towards them, and whether a change still fits.
//
// An operator sets a quota as user.rekeyfs.quota of a directory. What is below the directory counts, also in the quotas
// of all directories above it. A charge that would exceed a limit is refused with Errc::over_quota only after a walk has
// found that the directory is full; see Account for what is known in between. A store without any quota pays one atomic
// load for each change.
//
// A walk takes no lock that others wait for, except the account's own. Thread-safe. Do not call charge functions in a
// transaction or while holding a layer's lock.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <unordered_map>

#include "engine/base/background.h"
#include "engine/namespace/tree.h"
#include "engine/quota/account.h"
#include "engine/quota/usage_walk.h"
#include "engine/store/store.h"

namespace rekeyfs::quota {

class QuotaBook {
 public:
  QuotaBook(store::Store& store, const names::Tree& tree) : store_(store), tree_(tree) {}  // both must outlive it
  // Learns whether any directory has a quota, and counts in the background. Call before serving requests.
  Status start();
  void stop();

  // Whether any directory has a quota.
  bool is_used() const { return used_.load(); }
  // Call before the first quota is set: from here on changes are charged.
  Status begin_use();
  // Call after a quota was set or removed.
  void limits_changed() { changes_.fetch_add(1); }

  // Errc::over_quota names the directory whose limit the change would exceed. The caller keeps the charge until the
  // change is made.
  Result<Charge> charge_below(Ino directory, const Usage& more);
  Result<Charge> charge_image(Membership& membership, Ino image, const Usage& more);
  Result<Charge> charge_attribute(Ino node, std::uint64_t bytes);
  // The node gets a name in `to`, besides those it has or instead of the one in `from`. It counts in full in quotas
  // that it was not below of.
  Result<Charge> charge_link(Ino node, Ino to);
  Result<Charge> charge_move(Ino node, Ino from, Ino to);
  // Whether charge_below() would succeed.
  Status check_below(Ino directory, const Usage& more);
  // What deleting or replacing the image's content would free.
  Result<std::uint64_t> bytes_of(Ino image) const;

  // An open image has lost its last name: it counts where it was until it is closed. keep() may be called in the
  // transaction that unlinks it.
  void keep(Ino image, Ino parent);
  void forget(Ino image);

  struct Standing {
    names::Quota limits;
    Usage used;
  };
  // nullopt if the directory has no quota of its own.
  Result<std::optional<Standing>> standing_of(Ino directory);
  // What the quotas above the node leave, the tightest of each kind; nullopt for a kind without a limit.
  struct Room {
    struct Kind {
      std::uint64_t limit = 0, left = 0;
    };
    std::optional<Kind> bytes, images;
  };
  Result<Room> room_at(Ino node);

 private:
  std::uint64_t generation() const { return tree_.moves() + changes_.load() + 1; }
  // Counts events after which something may count elsewhere.
  std::uint64_t shifts() const { return tree_.moves() + store_.layers().disowned(); }
  UsageWalk new_walk() const { return UsageWalk(store_.catalog(), tree_, store_.layers(), stopped_); }

  std::shared_ptr<Account> account_of(Ino directory, const names::Quota& limits) EXCLUDES(mutex_);
  Result<Accounts> accounts_above(Ino directory);  // the directory's own included
  Result<Accounts> accounts_of(Ino node) EXCLUDES(mutex_);
  Result<Accounts> accounts_of(Membership& membership, Ino image);
  // Adds to `charge`, which is withdrawn as a whole if one part does not fit.
  Status add(const Accounts& accounts, const Usage& more, Charge& charge);
  Result<Charge> charge(const Accounts& accounts, const Usage& more);
  Status take(Account& account, const Usage& more);
  Status walk(Account& account, Account::Clock::time_point since);
  Status bring_up_to_date(Account& account);
  Error refusal(const Account& account) const;
  Background::Duration count_outdated();
  void count(Ino directory);

  store::Store& store_;
  const names::Tree& tree_;
  std::atomic<bool> used_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<std::uint64_t> changes_{0};  // of limits
  std::optional<std::uint64_t> counted_at_;  // used by the background thread only: shifts() when it last looked
  mutable Mutex mutex_;
  std::unordered_map<Ino, std::shared_ptr<Account>> accounts_ GUARDED_BY(mutex_);
  std::unordered_map<Ino, Accounts> unlinked_ GUARDED_BY(mutex_);  // open images without a name
  Background background_{"quotas", 10};
};

}  // namespace rekeyfs::quota
