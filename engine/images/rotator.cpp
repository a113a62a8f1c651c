#include "engine/images/rotator.h"

#include <chrono>
#include <deque>

#include "engine/base/log.h"
#include "engine/keys/key_access.h"
#include "engine/types/attributes.h"
#include "engine/types/event.h"

namespace rekeyfs::images {

using catalog::Table;
using catalog::make_key;
using names::InodeRecord;

namespace {
using namespace std::chrono_literals;
constexpr Background::Duration kNextWalk = 1s;
constexpr std::size_t kEntriesAtATime = 256;
}  // namespace

Status Rotator::start() {
  return background_.start([this] { return step(); });
}

Result<std::uint64_t> Rotator::rotate(Ino directory, std::string_view alias_or_id, const Caller& caller) {
  RK_TRY(store_.health().may_write());
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  const Rotation rotation{directory, key.id, caller.uid};
  RK_TRY(change_policies(rotation, caller));
  RK_TRY_ASSIGN(const Walk done, walk(rotation));
  {
    Lock lock(mutex_);
    ++asked_;
    // Not at once: what was made under the old policy while it changed is on record by then.
    next_walk_ = Background::Clock::now() + kNextWalk;
  }
  background_.wake();
  return done.taken;
}

Status Rotator::change_policies(const Rotation& rotation, const Caller& caller) {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(rotation.directory));
  if (inode.kind != NodeKind::directory) return fail(Errc::not_directory, "only a directory's images are given a new key together: replicate a single image instead");
  if (caller.uid != 0 && caller.uid != inode.uid)
    return fail(Errc::not_permitted, "only its owner or root gives a directory a new key");
  RK_TRY(keys::may_use(store_.keys(), rotation.key, caller));
  RK_TRY(keys::may_use(store_.keys(), inode.policy.key, caller));
  std::vector<Ino> directories{rotation.directory};
  RK_TRY(add_subdirectories(rotation.directory, inode.policy, directories));
  Event event;
  event.kind = EventKind::rotation_asked;
  event.uid = caller.uid;
  event.path = tree_.path_of(rotation.directory);
  event.key = audit::key_named(store_.keys(), rotation.key);
  event.key_before = audit::key_named(store_.keys(), inode.policy.key);

  catalog::WriteTxn txn(store_.catalog());
  for (Ino ino : directories) {
    auto one = names::Tree::get(txn, ino);
    if (!one) continue;  // removed meanwhile
    one->policy.key = rotation.key;
    one->changed = now();
    names::Tree::put(txn, ino, *one);
  }
  txn.put(make_key(Table::rotation, rotation.directory.value()),
          Writer().put_raw(rotation.key).put(static_cast<std::uint32_t>(rotation.asker)).take());
  RK_TRY(audit_.add(txn, std::move(event)));
  RK_TRY(txn.commit());
  return {};
}

Status Rotator::add_subdirectories(Ino directory, const names::Policy& policy, std::vector<Ino>& found) const {
  for (std::deque<Ino> left{directory}; !left.empty(); left.pop_front()) {
    RK_TRY_ASSIGN(const std::vector<DirectoryEntry> entries, entries_of(left.front()));
    for (const DirectoryEntry& entry : entries) {
      if (entry.kind != NodeKind::directory) continue;
      const auto inode = tree_.get(entry.ino);
      if (!inode || inode->policy.key != policy.key) continue;
      found.push_back(entry.ino);
      left.push_back(entry.ino);
    }
  }
  return {};
}

Result<Rotator::Walk> Rotator::walk(const Rotation& rotation) {
  Walk done;
  std::deque<Ino> left{rotation.directory};
  for (; !left.empty(); left.pop_front()) {
    RK_TRY_ASSIGN(const std::vector<DirectoryEntry> entries, entries_of(left.front()));
    for (const DirectoryEntry& entry : entries) {
      if (entry.kind == NodeKind::image) RK_TRY(take(rotation, left.front(), entry, done));
      const auto inode = entry.kind == NodeKind::directory ? tree_.get(entry.ino) : fail(Errc::not_directory);
      if (inode && inode->policy.key == rotation.key) left.push_back(entry.ino);
    }
  }
  return done;
}

Result<bool> Rotator::rekey(Ino ino, const Rotation& rotation) {
  RK_TRY_ASSIGN(const ImageHold image, open_.open(ino));
  const auto has_key = [&]() REQUIRES_SHARED(image->mutex) { return image->top->made_as().key == rotation.key; };
  {
    SharedLock lock(image->mutex);
    if (has_key()) return false;
  }
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(swaps_, rotation.key));
  {
    UniqueLock lock(image->mutex);
    if (image->truncations.pending()) return fail(Errc::busy, "the image is being replaced");
    if (has_key()) return false;
    RK_TRY(swap.overlay(*image, {}, rotation.asker));
  }
  announce_permissions(*image, observer_);
  return true;
}

Status Rotator::take(const Rotation& rotation, Ino directory, const DirectoryEntry& entry, Walk& done) {
  const auto taken = rekey(entry.ino, rotation);
  if (taken) {
    done.taken += *taken ? 1 : 0;
    return {};
  }
  switch (taken.error().code) {
    case Errc::stale: return {};  // deleted meanwhile
    case Errc::busy: ++done.left; return {};
    case Errc::corrupt:
      // One damaged image does not keep the others on the old key.
      log::error("{}/{} keeps its old key: {}", tree_.path_of(directory), entry.name, describe(taken.error()));
      return {};
    default: return fail(taken.error());
  }
}

Result<std::vector<DirectoryEntry>> Rotator::entries_of(Ino directory) const {
  std::vector<DirectoryEntry> all;
  for (std::uint64_t cookie = 0;;) {
    auto some = tree_.list(directory, cookie, kEntriesAtATime);
    if (!some && (some.error().code == Errc::stale || some.error().code == Errc::not_found)) return all;  // removed meanwhile
    if (!some) return fail(some.error());
    if (some->empty()) return all;
    cookie = some->back().next;
    std::move(some->begin(), some->end(), std::back_inserter(all));
  }
}

Background::Duration Rotator::step() {
  std::uint64_t asked = 0;
  {
    Lock lock(mutex_);
    asked = asked_;
    const auto wait = next_walk_ - Background::Clock::now();
    if (wait > 0s) return wait;
  }
  if (finished_ == asked) return Background::kUntilWoken;
  if (go_on()) return kNextWalk;
  finished_ = asked;
  return Background::Duration::zero();  // another may have been asked for meanwhile
}

bool Rotator::go_on() {
  std::vector<Rotation> rotations;
  const Status listed = store_.catalog().scan(make_key(Table::rotation), "", [&](std::string_view at, std::string_view value) {
    Rotation& rotation = rotations.emplace_back();
    rotation.directory = Ino{Reader(at.substr(1)).get_be64()};
    Reader in(value);
    in.get_into(rotation.key);
    rotation.asker = in.get<std::uint32_t>();
    return true;
  });
  if (!listed) log::error("rotations cannot be listed: {}", describe(listed.error()));
  bool left = !listed;
  for (const Rotation& rotation : rotations) {
    const auto done = walk(rotation);
    Status status;
    if (!done) status = fail(done.error());
    else if (done->taken == 0 && done->left == 0) status = finish(rotation.directory);
    else left = true;
    if (status) continue;
    log::error("rotation of {}: {}; it goes on by itself once the cause is gone", tree_.path_of(rotation.directory), describe(status.error()));
    left = true;
  }
  return left;
}

Status Rotator::finish(Ino directory) {
  catalog::WriteTxn txn(store_.catalog());
  txn.erase(make_key(Table::rotation, directory.value()));
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::images
