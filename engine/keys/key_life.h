// KeyLife: the life cycle of master keys from creation to deletion; the audit log records each step. Rotation rewraps
// data keys, disabling makes images unreadable immediately, and a deletion takes place when it is due; grants allow
// other users to use a key.
//
// Only a key's owner and operators may change it, and only with force may they disable or delete a key that images
// need. An order to disable or delete a key is carried out in this order, however many images there are: the gate is
// shut, the change recorded, the pages of open images dropped, the event logged. No failure of a later step takes an
// earlier one back. Thread-safe; one background thread waits for due deletions and watches the clock.
#pragma once

#include "engine/audit/audit_log.h"
#include "engine/base/background.h"
#include "engine/keys/cache_drops.h"
#include "engine/keys/deletions.h"
#include "engine/keys/key_uses.h"
#include "engine/types/caller.h"
#include "engine/types/event.h"
#include "engine/types/key_facts.h"
#include "engine/types/observer.h"

namespace rekeyfs::keys {

class KeyLife {
 public:
  // All arguments must outlive it. `user_keys`: how many keys each user may own who is not an operator.
  KeyLife(store::Store& store, const names::Tree& tree, const KeyUses& uses, replication::Filler& filler, audit::AuditLog& audit,
          Observer& observer, unsigned user_keys)
      : store_(store), uses_(uses), filler_(filler), audit_(audit), user_keys_(user_keys), deletions_(store, tree), drops_(store, uses, observer) {}

  // Completes rotations that were interrupted when the store was last in use. Call before serving requests.
  Status start();
  void stop() {
    background_.stop();
    drops_.stop();
  }

  Result<kms::KeyInfo> create(std::string_view alias, const Caller& caller);
  struct Changed {
    kms::KeyInfo key;
    std::string warning;  // what did not work although the key has changed; else empty
  };
  Result<Changed> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller);

  const Deletions& deletions() const { return deletions_; }

 private:
  Result<kms::KeyInfo> apply(const kms::KeyInfo& key, const KeyChange& change);
  // Disables or deletes.
  Result<Changed> take_away(const kms::KeyInfo& key, const KeyChange& change, const Caller& caller);
  Status check_delay(const KeyChange& change, const Caller& caller) const;
  Status check_not_due(const kms::KeyInfo& key) const;
  Status check_unneeded(const kms::KeyInfo& key) const;
  // The actions that follow a change of the key. The change stands even if they fail.
  Status follow(const KeyChange& change, const kms::KeyInfo& changed);
  Status finish_rotation(const kms::KeyInfo& key);
  // Rewraps all data keys that an older version wraps. True if none is left. Calls the key service between
  // transactions.
  Result<bool> rewrap_all(const kms::KeyInfo& key);
  using Rewrapped = blocks::LayerRegistry::Rewrapped;
  Status put(const std::vector<Rewrapped>& rewrapped);
  Result<std::vector<LayerId>> layers_behind(const kms::KeyInfo& key) const;
  Result<kms::KeyInfo> schedule_deletion(const kms::KeyInfo& key, Timestamp delay) EXCLUDES(scheduling_);
  Result<kms::KeyInfo> cancel_deletion(const kms::KeyInfo& key) EXCLUDES(scheduling_);
  // Gives it a record if it has none. Logged in both cases: an older version has ordered it, or it cannot be recorded.
  void adopt(const kms::KeyInfo& key) EXCLUDES(scheduling_);
  Background::Duration step();
  void watch_clock(const std::vector<kms::KeyInfo>& pending);
  void follow_setback(const kms::KeyInfo& key) EXCLUDES(scheduling_);
  void clock_jumped(const store::StoreClock::Jump& jump, const std::vector<kms::KeyInfo>& pending);
  void tell_of_gap();
  void tell_of_clock(const std::string& sentence);  // in the log and the audit log
  Status delete_if_due(const kms::KeyInfo& key);
  // A separate transaction, right after the key directory's own.
  Status log(EventKind kind, const kms::KeyInfo& key, const Caller& caller, std::string text = {});

  store::Store& store_;
  const KeyUses& uses_;
  replication::Filler& filler_;
  audit::AuditLog& audit_;
  const unsigned user_keys_;
  Mutex scheduling_;  // held while both records of a deletion are changed, or compared
  Deletions deletions_;
  CacheDrops drops_;
  Background::Clock::time_point clock_saved_{};  // used by the background thread only
  Background background_{"key-life"};
};

}  // namespace rekeyfs::keys
