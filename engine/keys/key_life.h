// KeyLife: the life cycle of master keys from creation to deletion; the audit log records each step. Rotation rewraps
// data keys, disabling makes images unreadable immediately, and a deletion takes place when it is due; grants allow
// other users to use a key.
//
// Only a key's owner and root may change it, and only with force may they disable or delete a key that images need.
// Thread-safe; one background thread waits for due deletions.
#pragma once

#include "engine/audit/audit_log.h"
#include "engine/base/background.h"
#include "engine/keys/key_uses.h"
#include "engine/types/caller.h"
#include "engine/types/event.h"
#include "engine/types/key_facts.h"
#include "engine/types/observer.h"

namespace rekeyfs::keys {

class KeyLife {
 public:
  // All arguments must outlive it.
  KeyLife(store::Store& store, const KeyUses& uses, replication::Filler& filler, audit::AuditLog& audit, Observer& observer)
      : store_(store), uses_(uses), filler_(filler), audit_(audit), observer_(observer) {}

  // Completes rotations that were interrupted when the store was last in use. Call before serving requests.
  Status start();
  void stop() { background_.stop(); }

  Result<kms::KeyInfo> create(std::string_view alias, const Caller& caller);
  Result<kms::KeyInfo> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller);

 private:
  Result<kms::KeyInfo> apply(const kms::KeyInfo& key, const KeyChange& change);
  Status check_unneeded(const kms::KeyInfo& key) const;
  // The actions that follow a change of the key. The change stands even if they fail.
  Status follow(const KeyChange& change, const kms::KeyInfo& changed);
  Status forget_content_of(const kms::KeyId& key);
  Status finish_rotation(const kms::KeyInfo& key);
  // Rewraps all data keys that an older version wraps. True if none is left. Calls the key service between
  // transactions.
  Result<bool> rewrap_all(const kms::KeyInfo& key);
  using Rewrapped = blocks::LayerRegistry::Rewrapped;
  Status put(const std::vector<Rewrapped>& rewrapped);
  Result<std::vector<LayerId>> layers_behind(const kms::KeyInfo& key) const;
  void delete_due();
  // A separate transaction, right after the key directory's own.
  Status log(EventKind kind, const kms::KeyInfo& key, const Caller& caller, std::string text = {});

  store::Store& store_;
  const KeyUses& uses_;
  replication::Filler& filler_;
  audit::AuditLog& audit_;
  Observer& observer_;
  Background background_{"key-life"};
};

}  // namespace rekeyfs::keys
