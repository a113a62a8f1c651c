#include "engine/images/layer_swap.h"

#include <utility>

#include "engine/replication/replication_record.h"

namespace rekeyfs::images {

using blocks::LayerRegistry;
using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;
using names::InodeRecord;
using names::Tree;

namespace {

// An encrypted image cannot be shared, so the mode bits are removed in the same transaction.
void take_sharing_away(Image& image, InodeRecord& inode) {
  if (inode.permissions & ~kOwnerOnly) image.lost_sharing.store(true);
  inode.permissions &= kOwnerOnly;
}

}  // namespace

Result<LayerSwap> LayerSwap::prepare(const Parts& parts, const std::optional<kms::KeyId>& key) {
  RK_TRY_ASSIGN(NewLayer drawn, parts.store.layers().draw(key));
  return LayerSwap(parts, std::move(drawn));
}

Result<bool> LayerSwap::rekey(const Parts& parts, Image& image, const kms::KeyId& key, uid_t asker) {
  const auto has_key = [&]() REQUIRES_SHARED(image.mutex) { return image.top->made_as().key == key; };
  {
    SharedLock lock(image.mutex);
    if (has_key()) return false;
  }
  RK_TRY_ASSIGN(LayerSwap swap, prepare(parts, key));
  UniqueLock lock(image.mutex);
  if (image.truncations.pending()) return fail(Errc::busy, "the image is being replaced");
  if (has_key()) return false;
  RK_TRY(swap.overlay(image, {}, asker));
  return true;
}

void LayerSwap::put_empty(WriteTxn& txn, Ino owner) {
  drawn_.record.owner = owner;
  LayerRegistry::put(txn, drawn_);
}

Status LayerSwap::overlay(Image& image, const DiskInside& inside, uid_t asker) {
  const std::uint64_t size = inside.is_wrapped() ? inside.size : image.top->size();
  RK_TRY_ASSIGN(Outcome outcome, open_over(image, image.top, inside, size, true));
  if (outcome.transforms) outcome.event = event_of(image.ino, image.ino, outcome, asker);
  return commit(image, std::move(outcome), [&](WriteTxn&, InodeRecord& inode) -> Status {
    if (!inside.is_wrapped()) return {};
    inode.image.disk = names::DiskState::disk;
    inode.image.findings.reset();
    return {};
  });
}

Status LayerSwap::replace(Image& image, const names::Policy& policy) {
  RK_TRY_ASSIGN(Outcome outcome, open_over(image, nullptr, {}, 0, false));
  return commit(image, std::move(outcome), [&](WriteTxn&, InodeRecord& inode) -> Status {
    inode.image.state = ImageState::normal_uninitialized;
    inode.image.disk = policy.fast_create ? names::DiskState::wanted : names::DiskState::as_stored;
    inode.image.findings.reset();
    inode.modified = inode.changed = now();
    return {};
  });
}

Status LayerSwap::copy(Image& image, const Copied& copied, const Edit& edit) {
  RK_TRY_ASSIGN(Outcome outcome, open_over(image, copied.base, copied.inside, copied.size, copied.from_base));
  outcome.event = event_of(image.ino, copied.source, outcome, copied.asker);
  return commit(image, std::move(outcome), edit);
}

// Opens the layer before its record exists, because nothing may fail after the commit.
Result<LayerSwap::Outcome> LayerSwap::open_over(const Image& image, std::shared_ptr<blocks::Layer> base, const DiskInside& inside,
                                                std::uint64_t size, bool from_base) {
  drawn_.record.owner = image.ino;
  drawn_.place_over(base ? base->id() : LayerId{}, size, from_base, inside.format, inside.size);
  Outcome outcome;
  outcome.keeps_old = base == image.top;
  outcome.transforms = base && drawn_.record.transforms(base->made_as());
  outcome.base = std::move(base);
  outcome.profile = profile_to_carry(outcome);
  RK_TRY_ASSIGN(outcome.top, parts_.store.layers().open_new(drawn_));
  return outcome;
}

Status LayerSwap::commit(Image& image, Outcome outcome, const Edit& edit) {
  const uid_t asker = outcome.event.uid;
  // Before any sync can make the record durable.
  if (outcome.base) parts_.store.checkpointer().must_precede_sync(outcome.base);
  std::vector<LayerRegistry::Released> released;
  {
    WriteTxn txn(parts_.store.catalog());
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, image.ino));
    if (outcome.keeps_old) {
      RK_TRY(parts_.store.layers().disown(txn, image.top->id()));
    } else {
      RK_TRY_ASSIGN(released, parts_.store.layers().release(txn, inode.image.layer));
      txn.erase(make_key(Table::replication, image.ino.value()));
      inode.image.state = ImageState::normal;
      inode.image.error.clear();
      inode.image.lineage.reset();
    }
    LayerRegistry::put(txn, drawn_);
    if (outcome.profile) boot::BootProfiles::put(txn, drawn_.id, *outcome.profile);
    inode.image.layer = drawn_.id;
    if (key()) take_sharing_away(image, inode);
    if (outcome.transforms) RK_TRY(put_transformation(txn, image.ino, outcome, inode));
    RK_TRY(edit(txn, inode));
    Tree::put(txn, image.ino, inode);
    if (!outcome.event.path.empty()) RK_TRY(parts_.audit.add(txn, std::move(outcome.event)));
    RK_TRY(txn.commit());
  }
  if (outcome.transforms || !outcome.keeps_old) parts_.filler.forget(image.ino);
  parts_.store.layers().forget(released);
  image.top = std::move(outcome.top);
  if (!outcome.keeps_old) image.truncations.grant_all();
  if (outcome.transforms) parts_.filler.add(image.ino, image.top, asker);
  return {};
}

Status LayerSwap::put_transformation(WriteTxn& txn, Ino ino, const Outcome& outcome, InodeRecord& inode) {
  inode.image.state = ImageState::replicating;
  inode.image.error.clear();
  inode.image.lineage = names::Lineage{inode.image.id, outcome.base->made_as().key, now(), 0};
  const replication::ReplicationRecord record{now(), outcome.event.source, outcome.event.uid};
  txn.put(make_key(Table::replication, ino.value()), record.encode());
  return {};
}

Event LayerSwap::event_of(Ino target, Ino source, const Outcome& outcome, uid_t asker) const {
  Event event;
  event.kind = outcome.transforms ? EventKind::replication_asked : EventKind::cloned;
  event.uid = asker;
  event.path = parts_.tree.path_of(target);
  event.source = parts_.tree.path_of(source);
  event.key = audit::key_named(parts_.store.keys(), key());
  event.key_before = audit::key_named(parts_.store.keys(), outcome.base->made_as().key);
  return event;
}

// A replica reads the same blocks as its source, unless it becomes the disk in it, and stands alone later: it gets a
// copy of the profile. A clone finds its source's profile.
std::optional<boot::BootProfile> LayerSwap::profile_to_carry(const Outcome& outcome) const {
  if (!outcome.transforms || drawn_.record.base_format != formats::Format::raw) return std::nullopt;
  auto found = parts_.profiles.find(outcome.base->id());
  return found ? std::optional(std::move(found->profile)) : std::nullopt;
}

}  // namespace rekeyfs::images
