#include "engine/keys/key_life.h"

#include <algorithm>
#include <chrono>

#include "engine/base/log.h"
#include "engine/keys/key_access.h"

namespace rekeyfs::keys {

using catalog::Table;
using catalog::make_key;

namespace {

using namespace std::chrono_literals;
constexpr Background::Duration kLookForDue = 1s;
constexpr std::size_t kLayersAtATime = 64;  // wrapped anew in one transaction; other writers wait that long
constexpr std::size_t kMostListed = 20;

EventKind event_of(KeyChange::Kind kind) {
  switch (kind) {
    case KeyChange::Kind::rotate: return EventKind::key_rotated;
    case KeyChange::Kind::disable: return EventKind::key_disabled;
    case KeyChange::Kind::enable: return EventKind::key_enabled;
    case KeyChange::Kind::schedule_deletion: return EventKind::key_deletion_asked;
    case KeyChange::Kind::cancel_deletion: return EventKind::key_deletion_cancelled;
    case KeyChange::Kind::grant: return EventKind::key_granted;
    case KeyChange::Kind::revoke: return EventKind::key_revoked;
  }
  return EventKind::key_created;  // not reached
}

std::string text_of(const KeyChange& change) {
  const bool is_grant = change.kind == KeyChange::Kind::grant || change.kind == KeyChange::Kind::revoke;
  if (is_grant) return "user " + std::to_string(change.user);
  return change.force ? "by force" : "";
}

}  // namespace

Status KeyLife::start() {
  RK_TRY_ASSIGN(const std::vector<kms::KeyInfo> keys, store_.keys().list());
  for (const kms::KeyInfo& key : keys) {
    if (key.oldest == key.version || key.state != kms::KeyState::enabled) continue;
    RK_TRY_ASSIGN(const bool all, rewrap_all(key));
    // Not while the store is in use: a layer being made may have been wrapped with an old version and not be on record.
    if (all) RK_TRY(store_.keys().forget_versions(key.id, key.version));
  }
  return background_.start([this] {
    delete_due();
    return kLookForDue;
  });
}

Result<kms::KeyInfo> KeyLife::create(std::string_view alias, const Caller& caller) {
  RK_TRY_ASSIGN(kms::KeyInfo key, store_.keys().create(alias, caller.uid));
  RK_TRY(log(EventKind::key_created, key, caller));
  return key;
}

Result<kms::KeyInfo> KeyLife::change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) {
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  RK_TRY(may_manage(key, caller));
  const bool takes_away = change.kind == KeyChange::Kind::disable || change.kind == KeyChange::Kind::schedule_deletion;
  std::vector<KeyUses::Use> uses;
  if (takes_away) {
    RK_TRY_ASSIGN(uses, uses_.of(key.id));
    if (!change.force) RK_TRY(check_unneeded(key, uses));
  }
  RK_TRY_ASSIGN(kms::KeyInfo changed, apply(key, change));
  if (takes_away) store_.layers().forget_keys_of(key.id);
  RK_TRY(log(event_of(change.kind), key, caller, text_of(change)));
  // What the kernel has cached of them must not be read any more either.
  for (const KeyUses::Use& use : uses)
    if (observer_) observer_->content_changed(use.image);
  return changed;
}

Result<kms::KeyInfo> KeyLife::apply(const kms::KeyInfo& key, const KeyChange& change) {
  kms::KeyService& service = store_.keys();
  switch (change.kind) {
    case KeyChange::Kind::rotate: return rotate(key.id);
    case KeyChange::Kind::disable: return service.disable(key.id);
    case KeyChange::Kind::enable: return service.enable(key.id);
    case KeyChange::Kind::schedule_deletion: return service.schedule_deletion(key.id, now() + change.delay);
    case KeyChange::Kind::cancel_deletion: return service.cancel_deletion(key.id);
    case KeyChange::Kind::grant: return service.grant(key.id, change.user);
    case KeyChange::Kind::revoke: return service.revoke(key.id, change.user);
  }
  return fail(Errc::invalid, "there is no such change of a key");
}

Status KeyLife::check_unneeded(const kms::KeyInfo& key, const std::vector<KeyUses::Use>& uses) const {
  std::string list;
  if (uses.empty()) return {};
  for (std::size_t i = 0; i < std::min(uses.size(), kMostListed); ++i)
    list += "\n  " + uses[i].facts.path + " (" + uses[i].facts.reason + ", " + uses[i].facts.until + ")";
  if (uses.size() > kMostListed) list += "\n  and " + std::to_string(uses.size() - kMostListed) + " more";
  return fail(Errc::busy, "key \"" + key.alias + "\" is still needed by " + std::to_string(uses.size()) +
                              (uses.size() == 1 ? " image" : " images") + ", which could not be read without it; --force does it all the same:" + list);
}

Result<kms::KeyInfo> KeyLife::rotate(const kms::KeyId& id) {
  RK_TRY_ASSIGN(const kms::KeyInfo rotated, store_.keys().rotate(id));
  RK_TRY(rewrap_all(rotated));
  return rotated;
}

Result<bool> KeyLife::rewrap_all(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const std::vector<LayerId> behind, layers_behind(key));
  bool all = true;
  for (std::size_t next = 0; next < behind.size();) {
    catalog::WriteTxn txn(store_.catalog());
    for (const std::size_t end = std::min(behind.size(), next + kLayersAtATime); next < end; ++next) {
      RK_TRY_ASSIGN(const auto there, store_.catalog().get(make_key(Table::layer, behind[next].value())));
      if (!there) continue;  // deleted meanwhile
      const Status done = store_.layers().rewrap(txn, behind[next]);
      // One damaged record must not keep the others on the old version.
      if (!done && done.error().code != Errc::corrupt) return fail(done.error());
      if (!done) rekeyfs::log::error("layer {} stays with an old version of its key: {}", behind[next].value(), describe(done.error()));
      all = all && done;
    }
    RK_TRY(txn.commit());
  }
  return all;
}

Result<std::vector<LayerId>> KeyLife::layers_behind(const kms::KeyInfo& key) const {
  std::vector<LayerId> behind;
  RK_TRY(store_.catalog().scan(make_key(Table::layer), "", [&](std::string_view at, std::string_view value) {
    const auto record = blocks::LayerRecord::decode(value);
    if (record && record->key == key.id && record->data_key.version != key.version)
      behind.push_back(LayerId{Reader(at.substr(1)).get_be64()});
    return true;
  }));
  return behind;
}

void KeyLife::delete_due() {
  const auto keys = store_.keys().list();
  if (!keys) return rekeyfs::log::error("keys cannot be listed: {}", describe(keys.error()));
  for (const kms::KeyInfo& key : *keys) {
    if (key.state != kms::KeyState::pending_deletion || key.deletion > now()) continue;
    Status removed = store_.keys().remove(key.id);
    if (removed) removed = log(EventKind::key_deleted, key, Caller{key.owner, 0}, "its deletion was due");
    if (!removed) rekeyfs::log::error("key {} cannot be deleted: {}", key.alias, describe(removed.error()));
  }
}

Status KeyLife::log(EventKind kind, const kms::KeyInfo& key, const Caller& caller, std::string text) {
  Event event;
  event.kind = kind;
  event.uid = caller.uid;
  event.key = {to_hex(key.id), key.alias};
  event.text = std::move(text);
  return audit_.add(std::move(event));
}

}  // namespace rekeyfs::keys
