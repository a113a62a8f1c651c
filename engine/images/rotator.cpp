#include "engine/images/rotator.h"

#include <chrono>
#include <deque>

#include "engine/base/log.h"
#include "engine/images/rotation_estimate.h"
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
constexpr std::size_t kMaxSkipped = 100;  // that are named
constexpr uid_t kOperators = static_cast<uid_t>(-1);  // recorded for a rotation that an operator asked for; nobody's id
constexpr std::size_t kEntriesAtATime = 256;  // entries handled per step; policies changed per transaction

bool is_gone(const Error& error) { return error.code == Errc::stale || error.code == Errc::not_found; }

std::string mib_text(std::uint64_t bytes) { return std::to_string((bytes + (1u << 20) - 1) >> 20) + " MiB"; }

}  // namespace

Status Rotator::start() {
  return background_.start([this] { return step(); });
}

std::optional<Rotator::Rotation> Rotator::decode(std::string_view at, std::string_view value) {
  Rotation rotation;
  rotation.directory = Ino{Reader(at.substr(1)).get_be64()};
  Reader in(value);
  in.get_into(rotation.key);
  const auto asker = in.get<std::uint32_t>();
  rotation.asker = {asker, 0, asker == kOperators || asker == 0};  // earlier versions recorded root
  if (in.finished()) return rotation;
  log::error("the record of a rotation of directory {} is malformed", rotation.directory.value());
  return std::nullopt;
}

std::string Rotator::encode(const Rotation& rotation) {
  const uid_t asker = rotation.asker.is_operator ? kOperators : rotation.asker.uid;
  return Writer().put_raw(rotation.key).put(static_cast<std::uint32_t>(asker)).take();
}

// --- asking for a rotation -------------------------------------------------------------------------------------

Result<RotationPlan> Rotator::plan(Ino directory, std::string_view alias_or_id, const Caller& caller) {
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  const Rotation rotation{directory, key.id, caller};
  RK_TRY_ASSIGN(const Key before, may_rotate(rotation));
  return plan_of(rotation, before);
}

Result<RotationPlan> Rotator::rotate(Ino directory, std::string_view alias_or_id, const Caller& caller) {
  RK_TRY(store_.health().may_write());
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  const Rotation rotation{directory, key.id, caller};
  RK_TRY_ASSIGN(const Key before, may_rotate(rotation));
  RK_TRY_ASSIGN(RotationPlan plan, plan_of(rotation, before));
  RK_TRY(check_room(rotation, before, plan));
  RK_TRY_ASSIGN(const std::vector<Rotation> earlier, on_record());
  for (const Rotation& other : earlier)
    if (other.directory == directory) RK_TRY(change_policies(other));  // completes an interrupted change of policies
  RK_TRY(put_on_record(rotation, before));
  RK_TRY(change_policies(rotation));
  RK_TRY_ASSIGN(Walk done, walk(rotation, before));
  plan.images = done.taken;
  plan.skipped = std::move(done.skipped.skipped);
  plan.skipped_count = done.skipped.skipped_count;
  return plan;
}

Result<Rotator::Key> Rotator::may_rotate(const Rotation& rotation) const {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(rotation.directory));
  if (inode.kind != NodeKind::directory)
    return fail(Errc::not_directory, "only directories can be rotated: replicate a single image instead");
  if (rotation.asker.uid == 0 && !rotation.asker.is_operator)
    return fail(Errc::not_permitted, "root may rotate keys through the root directory of the mount only");
  if (!owns(rotation, inode))
    return fail(Errc::not_permitted, "only the owner of the directory or an operator may rotate its key");
  RK_TRY(keys::may_use(store_.keys(), rotation.key, rotation.asker));
  RK_TRY(keys::may_use(store_.keys(), inode.policy.key, rotation.asker));
  return inode.policy.key;
}

std::optional<std::string> Rotator::why_kept(const Rotation& rotation, const InodeRecord& image, const Key& key) const {
  if (image.image.is_protected) return "it is protected: remove user.rekeyfs.protected first";
  if (!owns(rotation, image)) return "it belongs to user " + std::to_string(image.uid) + ": he or an operator may rotate it";
  const Status may = keys::may_use(store_.keys(), key, rotation.asker);
  return may ? std::nullopt : std::optional(describe(may.error()));
}

bool Rotator::enters(const Rotation& rotation, const Key& before, const InodeRecord& directory) {
  return owns(rotation, directory) && (directory.policy.key == before || directory.policy.key == rotation.key);
}

Result<RotationPlan> Rotator::plan_of(const Rotation& rotation, const Key& before) {
  RotationEstimate estimate(store_.layers());
  RotationPlan plan;
  RK_TRY(for_each_directory(rotation, before, [&](Ino directory, const std::vector<DirectoryEntry>& entries) -> Status {
    for (const DirectoryEntry& entry : entries) {
      skip_foreign(rotation, before, directory, entry, plan);
      const auto inode = entry.kind == NodeKind::image ? tree_.get(entry.ino) : fail(Errc::is_directory);
      if (!inode) continue;
      const auto top = store_.layers().record_of(inode->image.layer);
      // Leaves out what is damaged or was deleted meanwhile.
      if (!top || top->key == rotation.key) continue;
      if (auto why = why_kept(rotation, *inode, top->key)) skip(directory, entry, std::move(*why), plan);
      else static_cast<void>(estimate.add(inode->image.layer));
    }
    return {};
  }));
  plan.images = estimate.images();
  plan.bytes_to_transform = estimate.bytes();
  RK_TRY_ASSIGN(plan.space_needed, estimate.peak());
  RK_TRY_ASSIGN(const io::Space space, store_.storage().space());
  plan.space_available = space.available;
  return plan;
}

Status Rotator::check_room(const Rotation& rotation, const Key& before, RotationPlan& plan) {
  if (plan.space_needed <= plan.space_available) return {};
  RK_TRY(store_.checkpointer().run());  // removes deleted layers, which frees space
  RK_TRY_ASSIGN(plan, plan_of(rotation, before));
  if (plan.space_needed <= plan.space_available) return {};
  return fail(Errc::no_space, "No space left on device: while its images are encrypted anew, up to " + mib_text(plan.space_needed) +
                                  " more are needed, and " + mib_text(plan.space_available) +
                                  " are free; delete images, or make room on the disk of the store");
}

Status Rotator::put_on_record(const Rotation& rotation, const Key& before) {
  Event event;
  event.kind = EventKind::rotation_asked;
  event.uid = rotation.asker.uid;
  event.path = tree_.path_of(rotation.directory);
  event.key = audit::key_named(store_.keys(), rotation.key);
  event.key_before = audit::key_named(store_.keys(), before);
  {
    catalog::WriteTxn txn(store_.catalog());
    txn.put(make_key(Table::rotation, rotation.directory.value()), encode(rotation));
    RK_TRY(audit_.add(txn, std::move(event)));
    RK_TRY(txn.commit());
  }
  {
    Lock lock(mutex_);
    ++asked_;
    // Delayed, so that images created under the old policy during its change are on record by then.
    next_walk_ = Background::Clock::now() + kNextWalk;
  }
  background_.wake();
  return {};
}

// --- policies --------------------------------------------------------------------------------------------------

Status Rotator::change_policies(const Rotation& rotation) {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(rotation.directory));
  const Key before = inode.policy.key;
  if (before == rotation.key) return {};
  // Repeats for directories created meanwhile below one that had not been changed yet.
  for (std::size_t changed = 1; changed > 0;) {
    RK_TRY_ASSIGN(changed, change_policies_below(rotation, before));
  }
  RK_TRY(change_some({rotation.directory}, before, rotation.key));
  RK_TRY(change_policies_below(rotation, before));
  return {};
}

Result<std::size_t> Rotator::change_policies_below(const Rotation& rotation, const Key& before) {
  std::size_t changed = 0;
  RK_TRY(for_each_directory(rotation, before, [&](Ino, const std::vector<DirectoryEntry>& entries) -> Status {
    std::vector<Ino> directories;
    for (const DirectoryEntry& entry : entries) {
      const auto inode = entry.kind == NodeKind::directory ? tree_.get(entry.ino) : fail(Errc::not_directory);
      if (inode && inode->policy.key == before && owns(rotation, *inode)) directories.push_back(entry.ino);
    }
    RK_TRY_ASSIGN(const std::size_t some, change_some(directories, before, rotation.key));
    changed += some;
    return {};
  }));
  return changed;
}

Result<std::size_t> Rotator::change_some(const std::vector<Ino>& directories, const Key& before, const kms::KeyId& key) {
  if (directories.empty()) return 0;
  std::size_t changed = 0;
  catalog::WriteTxn txn(store_.catalog());
  for (const Ino ino : directories) {
    auto inode = names::Tree::get(txn, ino);
    if (!inode || inode->policy.key != before) continue;  // removed, or given another key meanwhile
    inode->policy.key = key;
    inode->changed = now();
    names::Tree::put(txn, ino, *inode);
    ++changed;
  }
  RK_TRY(txn.commit());
  return changed;
}

// --- walking ---------------------------------------------------------------------------------------------------

Status Rotator::for_each_directory(const Rotation& rotation, const Key& before, const Visit& visit) const {
  for (std::deque<Ino> left{rotation.directory}; !left.empty(); left.pop_front()) {
    const Ino directory = left.front();
    RK_TRY(for_some_entries(directory, [&](const std::vector<DirectoryEntry>& entries) -> Status {
      for (const DirectoryEntry& entry : entries) {
        const auto inode = entry.kind == NodeKind::directory ? tree_.get(entry.ino) : fail(Errc::not_directory);
        if (inode && enters(rotation, before, *inode)) left.push_back(entry.ino);
      }
      return visit(directory, entries);
    }));
  }
  return {};
}

Status Rotator::for_some_entries(Ino directory, const std::function<Status(const std::vector<DirectoryEntry>&)>& visit) const {
  for (std::uint64_t cookie = 0;;) {
    const auto some = tree_.list(directory, cookie, kEntriesAtATime);
    if (!some && is_gone(some.error())) return {};  // removed meanwhile
    if (!some) return fail(some.error());
    if (some->empty()) return {};
    cookie = some->back().next;
    RK_TRY(visit(*some));
  }
}

Result<Rotator::Walk> Rotator::walk(const Rotation& rotation, const Key& before) {
  Walk done;
  RK_TRY(for_each_directory(rotation, rotation.key, [&](Ino directory, const std::vector<DirectoryEntry>& entries) -> Status {
    for (const DirectoryEntry& entry : entries) {
      skip_foreign(rotation, before, directory, entry, done.skipped);
      if (entry.kind == NodeKind::image) RK_TRY(take(rotation, directory, entry, done));
    }
    return {};
  }));
  return done;
}

void Rotator::skip(Ino directory, const DirectoryEntry& entry, std::string why, RotationPlan& plan) const {
  ++plan.skipped_count;
  if (plan.skipped.size() >= kMaxSkipped) return;
  const std::string above = tree_.path_of(directory);
  plan.skipped.push_back({(above == "/" ? "" : above) + "/" + entry.name, std::move(why)});
}

void Rotator::skip_foreign(const Rotation& rotation, const Key& before, Ino directory, const DirectoryEntry& entry, RotationPlan& plan) const {
  if (entry.kind != NodeKind::directory) return;
  const auto inode = tree_.get(entry.ino);
  if (inode && inode->policy.key == before && !owns(rotation, *inode))
    skip(directory, entry, "the directory belongs to user " + std::to_string(inode->uid) + ": he or an operator may rotate it", plan);
}

Result<bool> Rotator::rekey(Ino ino, const Rotation& rotation) {
  RK_TRY_ASSIGN(const ImageHold image, open_.open(ino));
  Key key;
  {
    SharedLock lock(image->mutex);
    key = image->top->made_as().key;
  }
  if (key == rotation.key) return false;
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
  if (auto why = why_kept(rotation, inode, key)) return fail(Errc::not_permitted, std::move(*why));
  RK_TRY_ASSIGN(const bool taken, LayerSwap::rekey(swaps_, *image, rotation.key, rotation.asker.uid));
  announce_permissions(*image, observer_);
  return taken;
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
    case Errc::not_permitted: skip(directory, entry, taken.error().message, done.skipped); return {};
    case Errc::corrupt:
      // One damaged image must not prevent the rotation of the others.
      log::error("{}/{} keeps its old key: {}", tree_.path_of(directory), entry.name, describe(taken.error()));
      return {};
    default: return fail(taken.error());
  }
}

// --- in the background -----------------------------------------------------------------------------------------

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
  return Background::Duration::zero();  // another rotation may have been started meanwhile
}

Result<std::vector<Rotator::Rotation>> Rotator::on_record() const {
  std::vector<Rotation> rotations;
  RK_TRY(store_.catalog().scan(make_key(Table::rotation), "", [&](std::string_view at, std::string_view value) {
    if (const auto rotation = decode(at, value)) rotations.push_back(*rotation);
    return true;
  }));
  return rotations;
}

bool Rotator::go_on() {
  const auto rotations = on_record();
  if (!rotations) {
    log::error("cannot list rotations: {}", describe(rotations.error()));
    return true;
  }
  bool left = false;
  for (const Rotation& rotation : *rotations) {
    const auto is_left = go_on(rotation);
    if (!is_left)
      log::error("rotation of {} is suspended: {}; rekeyfs resumes it when the cause is gone",
                 tree_.path_of(rotation.directory), describe(is_left.error()));
    left = left || is_left.value_or(true);
  }
  return left;
}

Result<bool> Rotator::go_on(const Rotation& rotation) {
  const Status changed = change_policies(rotation);
  if (!changed && !is_gone(changed.error())) return fail(changed.error());
  RK_TRY_ASSIGN(const Walk done, walk(rotation, rotation.key));
  if (done.taken > 0 || done.left > 0) return true;
  RK_TRY(finish(rotation));
  return false;
}

// Does nothing if a rotation to another key was started meanwhile.
Status Rotator::finish(const Rotation& rotation) {
  const std::string at = make_key(Table::rotation, rotation.directory.value());
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(const auto value, txn.get(at));
  const auto now = value ? decode(at, *value) : std::nullopt;
  if (!now || now->key != rotation.key) return {};
  txn.erase(at);
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::images
