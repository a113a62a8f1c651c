#include "engine/keys/key_life.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/delay.h"
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
constexpr auto kSaveClock = 1min;
constexpr auto kMaxLook = 1s;  // for images that need a key

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
  if (is_grant) return "user " + std::to_string(change.user) + (change.declassify ? ", the right to declassify" : "");
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
  for (const kms::KeyInfo& key : store_.keys().pending()) adopt(key);
  tell_of_gap();
  RK_TRY(drops_.start());
  return background_.start([this] { return step(); });
}

Status KeyLife::finish_rotation(const kms::KeyInfo& key) {
  RK_TRY_ASSIGN(const bool all, rewrap_all(key));
  // Not while the store is in use: a new layer's data key may be wrapped by an old version and not be on record yet.
  if (!all) return {};
  RK_TRY(store_.checkpointer().sync_journal({}));  // a power cut must not bring back wrappings by what is destroyed now
  return store_.keys().forget_versions(key.id, key.version);
}

Result<kms::KeyInfo> KeyLife::create(std::string_view alias, const Caller& caller) {
  RK_TRY_ASSIGN(kms::KeyInfo key, store_.keys().create(alias, caller.uid, caller.is_operator ? SIZE_MAX : user_keys_));
  RK_TRY(log(EventKind::key_created, key, caller));
  return key;
}

Result<KeyLife::Changed> KeyLife::change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) {
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  RK_TRY(may_manage(key, caller));
  if (change.takes_away()) return take_away(key, change, caller);
  RK_TRY_ASSIGN(kms::KeyInfo changed, apply(key, change));
  // The key has changed. Both steps are done, even if the first one fails.
  const Status followed = caught([&] { return follow(change, changed); });
  const Status logged = caught([&] { return log(event_of(change.kind), key, caller, text_of(change)); });
  RK_TRY(followed);
  RK_TRY(logged);
  return Changed{std::move(changed), ""};
}

Result<KeyLife::Changed> KeyLife::take_away(const kms::KeyInfo& key, const KeyChange& change, const Caller& caller) {
  if (change.kind == KeyChange::Kind::schedule_deletion) RK_TRY(check_delay(change, caller));
  if (!change.force) RK_TRY(check_unneeded(key));
  auto changed = caught([&] { return apply(key, change); });
  RK_TRY_ASSIGN(const kms::KeyInfo now, store_.keys().find(key.id));
  if (!changed && (key.state != kms::KeyState::enabled || now.state == kms::KeyState::enabled)) return fail(changed.error());
  const Status dropped = caught([&]() -> Status {
    drops_.drop(key.id);
    return {};
  });
  if (!changed)
    return fail(changed.error().code, "key \"" + key.alias + "\" is disabled now, but this could not be recorded, and ends when the store is unmounted: " +
                                          describe(changed.error()) + "; remove the cause and repeat the command");
  const Status logged = caught([&] { return log(event_of(change.kind), key, caller, text_of(change)); });
  Changed done{std::move(*changed), ""};
  if (!dropped) done.warning = "the kernel may still cache content of its images: " + describe(dropped.error());
  if (!logged) done.warning += (dropped ? "" : "; ") + std::string("the audit log lacks this event: ") + describe(logged.error());
  return done;
}

Status KeyLife::follow(const KeyChange& change, const kms::KeyInfo& changed) {
  switch (change.kind) {
    case KeyChange::Kind::rotate: RK_TRY(rewrap_all(changed)); return {};
    case KeyChange::Kind::cancel_deletion:
    case KeyChange::Kind::enable: filler_.key_enabled(); return {};
    case KeyChange::Kind::disable:
    case KeyChange::Kind::schedule_deletion:
    case KeyChange::Kind::grant:
    case KeyChange::Kind::revoke: return {};
  }
  return {};  // not reached
}

Result<kms::KeyInfo> KeyLife::apply(const kms::KeyInfo& key, const KeyChange& change) {
  kms::KeyDirectory& keys = store_.keys();
  switch (change.kind) {
    case KeyChange::Kind::rotate: return keys.rotate(key.id);
    case KeyChange::Kind::disable:
      keys.shut(key.id);
      RK_TRY(store_.may_write());
      return keys.disable(key.id);
    case KeyChange::Kind::enable: return keys.enable(key.id);
    case KeyChange::Kind::schedule_deletion: return schedule_deletion(key, change.delay);
    case KeyChange::Kind::cancel_deletion: return cancel_deletion(key);
    case KeyChange::Kind::grant:
      if (!change.declassify) return keys.grant(key.id, change.user);
      RK_TRY(store_.require(store::Feature::key_rights));
      return keys.grant_declassification(key.id, change.user);
    case KeyChange::Kind::revoke:
      return change.declassify ? keys.revoke_declassification(key.id, change.user) : keys.revoke(key.id, change.user);
  }
  return fail(Errc::invalid, "unknown change of a key");
}

Result<kms::KeyInfo> KeyLife::schedule_deletion(const kms::KeyInfo& key, Timestamp delay) {
  store_.keys().shut(key.id);
  RK_TRY(store_.may_write());
  Lock lock(scheduling_);
  RK_TRY(check_not_due(key));
  RK_TRY_ASSIGN(const Timestamp when, deletions_.schedule(key.id, delay));
  return store_.keys().schedule_deletion(key.id, when);
}

Result<kms::KeyInfo> KeyLife::cancel_deletion(const kms::KeyInfo& key) {
  Lock lock(scheduling_);
  RK_TRY(check_not_due(key));
  RK_TRY_ASSIGN(kms::KeyInfo kept, store_.keys().cancel_deletion(key.id));
  // A record that stays does no harm: it does not fit the next deletion.
  if (const Status forgotten = deletions_.forget(key.id); !forgotten)
    rekeyfs::log::warn("the record of a deletion that was cancelled stays: {}", describe(forgotten.error()));
  return kept;
}

Status KeyLife::check_not_due(const kms::KeyInfo& key) const {
  if (key.state != kms::KeyState::pending_deletion) return {};
  RK_TRY_ASSIGN(const bool due, deletions_.is_due(key));
  if (due) return fail(Errc::invalid, "the deletion of key \"" + key.alias + "\" is due and takes place now");
  return {};
}

Status KeyLife::check_delay(const KeyChange& change, const Caller& caller) const {
  if (change.delay < 0) return fail(Errc::invalid, "the delay of a deletion must not be negative");
  RK_TRY_ASSIGN(const Timestamp least, deletions_.minimum());
  if (change.delay >= least || (caller.is_operator && change.force)) return {};
  const std::string minimum = delay_text(least);
  return fail(Errc::not_permitted, "keys of this store are deleted after " + minimum + " at the earliest, and not after " + delay_text(change.delay) +
                                       ": choose --after " + minimum + " or more" +
                                       (caller.is_operator ? ", or override this by --force" : "; only an operator can override this, by --force"));
}

// The paths of the images are not told here: the caller need not be allowed to see them.
Status KeyLife::check_unneeded(const kms::KeyInfo& key) const {
  const auto deadline = Background::Clock::now() + kMaxLook;
  std::uint64_t images = 0;
  const auto all = uses_.visit(key.id, [&](Ino, bool) { ++images; }, [&] { return Background::Clock::now() < deadline; });
  if (images == 0 && !all) return fail(all.error());
  if (images == 0 && *all) return {};
  if (images == 0)
    return fail(Errc::busy, "key \"" + key.alias + "\" may still be needed: the store has too many images to find out; --force overrides this check");
  return fail(Errc::busy, "key \"" + key.alias + "\" is still needed by " + (all.value_or(false) ? "" : "at least ") + std::to_string(images) +
                              (images == 1 ? " image" : " images") + ", which would become unreadable: `rekeyfs key show " + key.alias +
                              " PATH` lists those that you can see; --force overrides this check");
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

void KeyLife::adopt(const kms::KeyInfo& key) {
  Lock lock(scheduling_);
  const auto now = store_.keys().find(key.id);
  if (!now || now->state != kms::KeyState::pending_deletion) return;  // it was cancelled meanwhile
  const Result<bool> adopted = caught([&] { return deletions_.adopt(*now); });
  if (!adopted) rekeyfs::log::error("the deletion of key {} is put off: {}", key.alias, describe(adopted.error()));
  else if (*adopted) rekeyfs::log::warn("the deletion of key {} was ordered by an older version of rekeyfs: its delay starts anew", key.alias);
}

Background::Duration KeyLife::step() {
  if (!store_.may_write()) return kLookForDue;
  const std::vector<kms::KeyInfo> pending = store_.keys().pending();
  watch_clock(pending);
  for (const kms::KeyInfo& key : pending)
    if (const Status deleted = delete_if_due(key); !deleted) rekeyfs::log::error("cannot delete key {}: {}", key.alias, describe(deleted.error()));
  return kLookForDue;
}

Status KeyLife::delete_if_due(const kms::KeyInfo& key) {
  adopt(key);
  RK_TRY_ASSIGN(const bool due, deletions_.is_due(key));
  if (!due) return {};
  RK_TRY(store_.keys().remove(key.id, store_.clock().wall_time()));
  RK_TRY(deletions_.forget(key.id));
  return log(EventKind::key_deleted, key, Caller{key.owner, 0}, "its deletion was due");
}

void KeyLife::watch_clock(const std::vector<kms::KeyInfo>& pending) {
  if (const auto jump = store_.clock().take_jump()) clock_jumped(*jump, pending);
  if (pending.empty() || Background::Clock::now() - clock_saved_ < kSaveClock) return;
  clock_saved_ = Background::Clock::now();
  if (const Status saved = store_.clock().save(); !saved) rekeyfs::log::error("the time of the store is not saved: {}", describe(saved.error()));
}

// A clock that was set back would delay deletions by as much. Their wall-clock times move with it, and store time still
// keeps them from being early.
void KeyLife::clock_jumped(const store::StoreClock::Jump& jump, const std::vector<kms::KeyInfo>& pending) {
  const bool back = jump.found < jump.expected;
  const std::string by = rough_delay_text(back ? jump.expected - jump.found : jump.found - jump.expected);
  tell_of_clock("the clock was set " + std::string(back ? "back" : "forward") + " by " + by + ": keys are deleted neither earlier nor later for that");
  if (!back) return;
  for (const kms::KeyInfo& key : pending) follow_setback(key);
}

void KeyLife::follow_setback(const kms::KeyInfo& key) {
  Lock lock(scheduling_);
  const Status moved = [&]() -> Status {
    RK_TRY_ASSIGN(const kms::KeyInfo now, store_.keys().find(key.id));
    if (now.state != kms::KeyState::pending_deletion) return {};  // it was cancelled meanwhile
    RK_TRY_ASSIGN(const std::optional<Timestamp> when, deletions_.after_setback(now));
    if (when) RK_TRY(store_.keys().move_deletion(key.id, *when));
    return {};
  }();
  if (!moved) rekeyfs::log::error("the deletion of key {} is delayed by the clock: {}", key.alias, describe(moved.error()));
}

// At a mount, nothing tells whether the clock was set forward or the store was not used for so long. It matters if a
// deletion would be due by the wall clock.
void KeyLife::tell_of_gap() {
  const std::vector<kms::KeyInfo> pending = store_.keys().pending();
  const Timestamp wall = store_.clock().wall_time();
  const bool matters = std::any_of(pending.begin(), pending.end(), [&](const kms::KeyInfo& key) {
    return key.deletion <= wall && key.deletion > wall - store_.clock().gap();
  });
  if (matters)
    tell_of_clock("the clock is " + rough_delay_text(store_.clock().gap()) + " later than when the store was last in use: deletions of keys wait until the "
                  "store was mounted for as long as their delays");
}

void KeyLife::tell_of_clock(const std::string& sentence) {
  rekeyfs::log::warn("{}", sentence);
  Event event;
  event.kind = EventKind::clock_jumped;
  event.text = sentence;
  if (const Status logged = audit_.add(std::move(event)); !logged) rekeyfs::log::error("the audit log lacks an event of the clock: {}", describe(logged.error()));
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
