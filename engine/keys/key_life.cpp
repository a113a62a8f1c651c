#include "engine/keys/key_life.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "engine/keys/key_access.h"

namespace rekeyfs::keys {

using catalog::Table;
using catalog::make_key;

namespace {

using namespace std::chrono_literals;
constexpr Background::Duration kLookForDue = 1s;
constexpr std::size_t kLayersAtATime = 64;  // records per transaction; other writers wait for it
constexpr std::size_t kMaxListed = 20;

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
    // If this fails, the old versions are kept and the next mount retries.
    if (const Status finished = caught([&] { return finish_rotation(key); }); !finished)
      rekeyfs::log::error("the rotation of key {} cannot be finished: {}", key.alias, describe(finished.error()));
  }
  return background_.start([this] {
    delete_due();
    return kLookForDue;
  });
}

Status KeyLife::finish_rotation(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const bool all, rewrap_all(key));
  // Not while the store is in use: a new layer's data key may be wrapped by an old version and not be on record yet.
  if (!all) return {};
  RK_TRY(store_.checkpointer().sync_journal({}));  // a power cut must not bring back wrappings by what is destroyed now
  return store_.keys().forget_versions(key.id, key.version);
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
  if (takes_away && !change.force) RK_TRY(check_unneeded(key));
  RK_TRY_ASSIGN(kms::KeyInfo changed, apply(key, change));
  // The key has changed. Both steps are done, even if the first one fails.
  const Status followed = caught([&] { return follow(change, changed); });
  const Status logged = caught([&] { return log(event_of(change.kind), key, caller, text_of(change)); });
  RK_TRY(followed);
  RK_TRY(logged);
  return changed;
}

Status KeyLife::follow(const KeyChange& change, const kms::KeyInfo& changed) {
  switch (change.kind) {
    case KeyChange::Kind::disable:
    case KeyChange::Kind::schedule_deletion: return forget_content_of(changed.id);
    case KeyChange::Kind::rotate: RK_TRY(rewrap_all(changed)); return {};
    case KeyChange::Kind::enable:
    case KeyChange::Kind::cancel_deletion: filler_.key_enabled(); return {};
    case KeyChange::Kind::grant:
    case KeyChange::Kind::revoke: return {};
  }
  return {};  // not reached
}

// The gate is shut, so nothing is decrypted with the key any more. The kernel's cached pages must be dropped, too:
// first those of open images, which may be mapped and are known without the catalog, then those of all images on
// record.
Status KeyLife::forget_content_of(const kms::KeyId& key) {
  const std::vector<Ino> open_images = store_.layers().forget_keys_of(key);
  for (const Ino image : open_images) observer_.content_changed(image);
  return uses_.visit(key, [&](Ino image, bool) { observer_.content_changed(image); });
}

Result<kms::KeyInfo> KeyLife::apply(const kms::KeyInfo& key, const KeyChange& change) {
  kms::KeyDirectory& keys = store_.keys();
  switch (change.kind) {
    case KeyChange::Kind::rotate: return keys.rotate(key.id);
    case KeyChange::Kind::disable: return keys.disable(key.id);
    case KeyChange::Kind::enable: return keys.enable(key.id);
    case KeyChange::Kind::schedule_deletion: return keys.schedule_deletion(key.id, now() + change.delay);
    case KeyChange::Kind::cancel_deletion: return keys.cancel_deletion(key.id);
    case KeyChange::Kind::grant: return keys.grant(key.id, change.user);
    case KeyChange::Kind::revoke: return keys.revoke(key.id, change.user);
  }
  return fail(Errc::invalid, "unknown change of a key");
}

Status KeyLife::check_unneeded(const kms::KeyInfo& key) const {
  RK_TRY_ASSIGN(const std::vector<KeyUse> uses, uses_.of(key.id));
  std::string list;
  if (uses.empty()) return {};
  for (std::size_t i = 0; i < std::min(uses.size(), kMaxListed); ++i)
    list += "\n  " + uses[i].path + " (" + uses[i].reason + ", " + uses[i].until + ")";
  if (uses.size() > kMaxListed) list += "\n  and " + std::to_string(uses.size() - kMaxListed) + " more";
  return fail(Errc::busy, "key \"" + key.alias + "\" is still needed by " + std::to_string(uses.size()) +
                              (uses.size() == 1 ? " image" : " images") +
                              ", which would become unreadable; --force overrides this check:" + list);
}

Result<bool> KeyLife::rewrap_all(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const std::vector<LayerId> behind, layers_behind(key));
  bool all = true;
  std::vector<Rewrapped> some;
  for (const LayerId layer : behind) {
    auto rewrapped = store_.layers().rewrap(layer);
    // One damaged record must not keep the others on the old version.
    if (!rewrapped && rewrapped.error().code != Errc::corrupt) return fail(rewrapped.error());
    if (!rewrapped)
      rekeyfs::log::error("cannot rewrap the data key of layer {}: {}", layer.value(), describe(rewrapped.error()));
    all = all && rewrapped;
    if (rewrapped && *rewrapped) some.push_back(std::move(**rewrapped));
    if (some.size() == kLayersAtATime) RK_TRY(put(std::exchange(some, {})));
  }
  RK_TRY(put(some));
  return all;
}

Status KeyLife::put(const std::vector<Rewrapped>& rewrapped) {
  catalog::WriteTxn txn(store_.catalog());
  for (const Rewrapped& one : rewrapped) RK_TRY(store_.layers().put_rewrapped(txn, one));
  RK_TRY(txn.commit());
  return {};
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
  if (!keys) return rekeyfs::log::error("cannot list keys: {}", describe(keys.error()));
  for (const kms::KeyInfo& key : *keys) {
    if (key.state != kms::KeyState::pending_deletion || key.deletion > now()) continue;
    Status removed = store_.keys().remove(key.id);
    if (removed) removed = log(EventKind::key_deleted, key, Caller{key.owner, 0}, "its deletion was due");
    if (!removed) rekeyfs::log::error("cannot delete key {}: {}", key.alias, describe(removed.error()));
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
