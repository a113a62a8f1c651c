// KeyLife: master keys from their making to their deletion, each step in the audit log. Rotation wraps data keys anew, disabling makes images
// unreadable at once, a deletion that is due takes place; grants say who else may use a key.
//
// Only a key's owner and root change it, and a key that images still need is disabled or deleted only by force.
// Thread-safe; one background thread waits for deletions to be due.
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
  // All outlive it.
  KeyLife(store::Store& store, const KeyUses& uses, replication::Filler& filler, audit::AuditLog& audit, Observer& observer)
      : store_(store), uses_(uses), filler_(filler), audit_(audit), observer_(observer) {}

  // Finishes what a rotation left when the store was last in use. Before any traffic.
  Status start();
  void stop() { background_.stop(); }

  Result<kms::KeyInfo> create(std::string_view alias, const Caller& caller);
  Result<kms::KeyInfo> change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller);

 private:
  Result<kms::KeyInfo> apply(const kms::KeyInfo& key, const KeyChange& change);
  Status check_unneeded(const kms::KeyInfo& key) const;
  // What has to be done once the key has changed. The change stands, whatever becomes of it.
  Status follow(const KeyChange& change, const kms::KeyInfo& changed);
  Status forget_content_of(const kms::KeyId& key);
  Status finish_rotation(const kms::KeyInfo& key);
  // Whether every data key is wrapped with the newest version now. The key service is asked between transactions.
  Result<bool> rewrap_all(const kms::KeyInfo& key);
  using Rewrapped = blocks::LayerRegistry::Rewrapped;
  Status put(const std::vector<Rewrapped>& rewrapped);
  Result<std::vector<LayerId>> layers_behind(const kms::KeyInfo& key) const;
  void delete_due();
  // The key directory puts its records in transactions of its own, so this is one more, right after.
  Status log(EventKind kind, const kms::KeyInfo& key, const Caller& caller, std::string text = {});

  store::Store& store_;
  const KeyUses& uses_;
  replication::Filler& filler_;
  audit::AuditLog& audit_;
  Observer& observer_;
  Background background_{"key-life"};
};

}  // namespace rekeyfs::keys
