#include "engine/images/images.h"

#include <fcntl.h>

#include <algorithm>

#include "engine/base/exceptions.h"
#include "engine/types/attributes.h"

namespace rekeyfs {

void OpenFileDeleter::operator()(OpenFile* file) const { file->owner.release(file); }

}  // namespace rekeyfs

namespace rekeyfs::images {

using blocks::LayerRegistry;
using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;
using names::InodeRecord;
using names::Tree;

namespace {

Result<Uuid> random_uuid() {
  Uuid id;
  RK_TRY(crypto::fill_random(id));
  id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x40};  // RFC 4122, version 4
  id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};
  return id;
}

}  // namespace

// --- opening and closing ---------------------------------------------------------------------------------------

Result<OpenFilePtr> Images::create(Ino parent, std::string_view name, mode_t mode, const Caller& caller) {
  RK_TRY(store_.health().may_write());
  RK_TRY_ASSIGN(const InodeRecord directory, tree_.get(parent));
  Plan plan;
  plan.key = directory.policy.key;
  RK_TRY(check_key(plan.key, caller, [&] { return tree_.path_of(parent) + "/" + std::string(name); }));
  RK_TRY_ASSIGN(LayerRegistry::NewLayer layer, store_.layers().make(plan));
  InodeRecord inode;
  inode.kind = NodeKind::image;
  inode.permissions = mode & (plan.key ? kOwnerOnly : 07777);
  inode.uid = caller.uid;
  inode.gid = caller.gid;
  inode.image.layer = layer.id;
  inode.image.state = ImageState::normal_uninitialized;
  inode.image.type = directory.policy.type;
  if (directory.policy.fast_create) inode.image.disk = names::DiskState::wanted;
  RK_TRY_ASSIGN(inode.image.id, random_uuid());
  Ino ino;
  {
    WriteTxn txn(store_.catalog());
    RK_TRY_ASSIGN(ino, tree_.add(txn, parent, name, inode));
    layer.record.owner = ino;
    LayerRegistry::put(txn, layer);
    RK_TRY(txn.commit());
  }
  RK_TRY_ASSIGN(ImagePtr image, open_image(ino));
  OpenFilePtr file(new OpenFile(*this, std::move(image)));
  file->created = true;
  file->uid = caller.uid;
  file->fast_create = directory.policy.fast_create;
  file->image->creators.fetch_add(1);
  file->parent = parent;
  file->name = name;
  mark_unflushed(*file);
  return file;
}

Result<OpenFilePtr> Images::open(Ino ino, int flags, const Caller& caller) {
  const bool truncate = (flags & O_TRUNC) != 0;
  InodeRecord inode;
  if ((flags & O_ACCMODE) != O_RDONLY || truncate) {
    RK_TRY(store_.health().may_write());
    RK_TRY_ASSIGN(inode, tree_.get(ino));
    if (inode.image.is_protected)
      return fail(Errc::not_permitted, "the image is protected: remove user.rekeyfs.protected first");
  }
  RK_TRY_ASSIGN(ImagePtr image, open_image(ino));
  OpenFilePtr file(new OpenFile(*this, image));
  file->uid = caller.uid;
  RK_TRY(check_keys(*image, flags, caller));
  if (truncate) {
    file->truncates = true;
    UniqueLock lock(image->mutex);
    // An empty image, too, goes on as its directory's policy says now.
    RK_TRY_ASSIGN(const names::Policy policy, policy_of_new_content(*image));
    const bool differs = image->top->made_as().key != policy.key || policy.fast_create;
    image->truncating = image->truncating || image->top->size() > 0 || differs;
    file->fast_create = policy.fast_create;
    mark_unflushed(*file);
  } else if ((flags & O_ACCMODE) == O_RDWR) {
    begin_boot(*file, inode);
  }
  return file;
}

Status Images::check_keys(const Image& image, int flags, const Caller& caller) {
  std::optional<kms::KeyId> key, new_key;
  {
    SharedLock lock(image.mutex);
    key = image.top->made_as().key;
    if (flags & O_TRUNC) {
      RK_TRY_ASSIGN(const names::Policy policy, policy_of_new_content(image));
      new_key = policy.key;
    }
  }
  const auto path = [&] { return tree_.path_of(image.ino); };
  RK_TRY(check_key(key, caller, path));
  return check_key(new_key, caller, path);
}

Status Images::check_key(const std::optional<kms::KeyId>& key, const Caller& caller, const std::function<std::string()>& path) {
  const Status may = keys::may_use(store_.keys(), key, caller);
  if (may) return {};
  Event refusal = refusal_event(path(), caller, may.error());
  refusal.key = audit::key_named(store_.keys(), key);
  record(std::move(refusal));
  return may;
}

Result<Images::ImagePtr> Images::open_image(Ino ino) {
  Lock opening(opening_);
  if (const auto found = open_.find(ino); found != open_.end()) {
    ++found->second->opens;
    return found->second;
  }
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
  if (inode.kind == NodeKind::directory) return fail(Errc::is_directory);
  if (inode.kind == NodeKind::symlink) return fail(Errc::invalid, "a symbolic link has no content");
  RK_TRY_ASSIGN(std::shared_ptr<blocks::Layer> layer, store_.layers().get(inode.image.layer));
  auto image = std::make_shared<Image>(ino);
  {
    UniqueLock lock(image->mutex);
    image->top = std::move(layer);
  }
  image->opens = 1;
  open_.emplace(ino, image);
  return image;
}

Images::ImagePtr Images::find_open(Ino ino) {
  Lock opening(opening_);
  const auto found = open_.find(ino);
  return found == open_.end() ? nullptr : found->second;
}

void Images::release(OpenFile* raw) {
  const std::unique_ptr<OpenFile> file(raw);
  if (const auto recording = close(*file)) keep_profile(*recording);
}

std::shared_ptr<boot::Recording> Images::close(OpenFile& closed) {
  // FLUSH comes before: this is for those who never flush.
  {
    Lock lock(closed.mutex);
    if (closed.unflushed) closed.image->unflushed.fetch_sub(1);
    if (closed.unflushed) initializer_.touched(closed.image->ino);
    if (closed.stitch) filler_.let_go(closed.image->ino);
  }
  Lock opening(opening_);
  Image& image = *closed.image;
  if (closed.created) image.creators.fetch_sub(1);
  auto recording = end_boot(closed);
  if (--image.opens > 0) return recording;
  if (image.unlinked) {
    std::vector<LayerRegistry::Released> released;
    const Status reaped = caught([&]() -> Status {
      WriteTxn txn(store_.catalog());
      RK_TRY(reap(txn, image.ino, released));
      RK_TRY(txn.commit());
      return {};
    });
    // Otherwise it stays an orphan on record and goes with the next mount.
    if (reaped) forget(image.ino, released);
  }
  open_.erase(image.ino);
  return recording;
}

// --- deleting --------------------------------------------------------------------------------------------------

Status Images::reap(WriteTxn& txn, Ino ino, std::vector<LayerRegistry::Released>& released) {
  RK_TRY_ASSIGN(const InodeRecord inode, Tree::get(txn, ino));
  RK_TRY_ASSIGN(released, store_.layers().release(txn, inode.image.layer));
  RK_TRY(tree_.erase_xattrs(txn, ino));
  txn.erase(make_key(Table::replication, ino.value()));
  txn.erase(make_key(Table::orphan, ino.value()));
  txn.erase(make_key(Table::inode, ino.value()));
  return {};
}

Status Images::image_unlinked(WriteTxn& txn, Ino ino, InodeRecord& inode) NO_THREAD_SAFETY_ANALYSIS {
  RK_TRY(store_.health().may_write());
  Tree::put(txn, ino, inode);
  unlinking_ = ino;
  if (!open_.contains(ino)) return reap(txn, ino, released_);
  txn.put(make_key(Table::orphan, ino.value()), "");
  return {};
}

void Images::unlink_committed(bool committed) NO_THREAD_SAFETY_ANALYSIS {
  const std::vector<LayerRegistry::Released> released = std::exchange(released_, {});
  const Ino unlinked = std::exchange(unlinking_, Ino{});
  if (!committed || !unlinked) return;
  if (const auto found = open_.find(unlinked); found != open_.end()) found->second->unlinked = true;
  else forget(unlinked, released);
}

// After the transaction of reap(), never within it: the filler's lock is taken before a layer's, and a layer's before
// the catalog's.
void Images::forget(Ino ino, const std::vector<LayerRegistry::Released>& released) {
  filler_.forget(ino);
  initializer_.forget(ino);
  store_.layers().forget(released);
}

Status Images::reap_orphans() {
  std::vector<Ino> orphans;
  RK_TRY(store_.catalog().scan(make_key(Table::orphan), "", [&](std::string_view key, std::string_view) {
    orphans.push_back(Ino{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (Ino ino : orphans) {
    std::vector<LayerRegistry::Released> released;
    {
      WriteTxn txn(store_.catalog());
      RK_TRY(reap(txn, ino, released));
      RK_TRY(txn.commit());
    }
    forget(ino, released);
  }
  return {};
}

// --- which layer a change goes to ------------------------------------------------------------------------------

Status Images::with_writable(Image& image, const std::function<Status(const std::shared_ptr<blocks::Layer>&)>& change) {
  for (;;) {
    {
      SharedLock lock(image.mutex);
      if (!image.truncating) RK_TRY(image.top->may_use_key());
      if (!image.truncating && !image.top->is_shared()) return change(image.top);
    }
    {
      UniqueLock lock(image.mutex);
      RK_TRY(make_writable(image));
    }
    announce_permissions(image);
  }
}

Status Images::make_writable(Image& image) {
  if (image.truncating) {
    RK_TRY_ASSIGN(const names::Policy policy, policy_of_new_content(image));
    RK_TRY(replace_content(image, policy));
    image.truncating = false;
  }
  return image.top->is_shared() ? put_overlay(image, {image.top->made_as().key}) : Status{};
}

Result<bool> Images::rekey(Ino ino, const kms::KeyId& key, uid_t asker) {
  RK_TRY_ASSIGN(ImagePtr opened, open_image(ino));
  const OpenFilePtr file(new OpenFile(*this, std::move(opened)));
  Image& image = *file->image;
  {
    UniqueLock lock(image.mutex);
    if (image.truncating) return fail(Errc::busy, "the image is being replaced");
    if (image.top->made_as().key == key) return false;
    RK_TRY(put_overlay(image, {key, {}, asker}));
  }
  announce_permissions(image);
  return true;
}

// The top layer stays as it is, for others who read from it, and the image goes on in a new one over it. With another
// key than before, or as the disk in it, that is a replication of the image to itself.
Status Images::put_overlay(Image& image, const Overlay& overlay) {
  Plan plan;
  plan.key = overlay.key;
  plan.base = image.top->id();
  plan.base_format = overlay.inside.format;
  plan.disk_size = overlay.inside.size;
  plan.size = overlay.inside.is_wrapped() ? overlay.inside.size : image.top->size();
  plan.from_base = true;
  plan.owner = image.ino;
  RK_TRY_ASSIGN(const LayerRegistry::NewLayer fresh, store_.layers().make(plan));
  RK_TRY_ASSIGN(std::shared_ptr<blocks::Layer> top, store_.layers().open_new(fresh));
  const blocks::LayerRecord& below = image.top->made_as();
  const bool transforms = fresh.record.transforms(below);
  const std::optional<boot::BootProfile> profile = profile_to_carry(fresh.record, *image.top);
  Event event;  // of an overlay with the same content and key nobody is told
  if (transforms) event = copy_event(image.ino, image.ino, fresh.record, below, overlay.asker);
  store_.checkpointer().must_precede_sync(image.top);
  {
    WriteTxn txn(store_.catalog());
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, image.ino));
    RK_TRY(store_.layers().disown(txn, image.top->id()));
    LayerRegistry::put(txn, fresh);
    if (profile) boot::BootProfiles::put(txn, fresh.id, *profile);
    inode.image.layer = fresh.id;
    if (overlay.inside.is_wrapped()) {
      inode.image.disk = names::DiskState::disk;
      inode.image.findings.reset();
    }
    if (transforms) {
      inode.image.state = ImageState::replicating;
      inode.image.error.clear();
      inode.image.lineage = names::Lineage{inode.image.id, below.key, now(), 0};
      if (overlay.key) take_sharing_away(image, inode);
      txn.put(make_key(Table::replication, image.ino.value()), replication::ReplicationRecord{now(), event.source, overlay.asker}.encode());
      RK_TRY(audit_.add(txn, std::move(event)));
    }
    Tree::put(txn, image.ino, inode);
    RK_TRY(txn.commit());
  }
  if (transforms) filler_.forget(image.ino);
  image.top = std::move(top);
  if (transforms) filler_.add(image.ino, image.top, false);
  return {};
}

Event Images::copy_event(Ino target, Ino source, const blocks::LayerRecord& layer, const blocks::LayerRecord& base, uid_t asker) const {
  Event event;
  event.kind = layer.transforms(base) ? EventKind::replication_asked : EventKind::cloned;
  event.uid = asker;
  event.path = tree_.path_of(target);
  event.source = tree_.path_of(source);
  event.key = audit::key_named(store_.keys(), layer.key);
  event.key_before = audit::key_named(store_.keys(), base.key);
  return event;
}

Status Images::replace_content(Image& image, const names::Policy& policy) {
  Plan plan;
  plan.key = policy.key;
  plan.owner = image.ino;
  RK_TRY_ASSIGN(const LayerRegistry::NewLayer fresh, store_.layers().make(plan));
  RK_TRY_ASSIGN(std::shared_ptr<blocks::Layer> top, store_.layers().open_new(fresh));
  std::vector<LayerRegistry::Released> released;
  {
    WriteTxn txn(store_.catalog());
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, image.ino));
    RK_TRY_ASSIGN(released, store_.layers().release(txn, inode.image.layer));
    LayerRegistry::put(txn, fresh);
    inode.image.layer = fresh.id;
    inode.image.state = ImageState::normal_uninitialized;
    inode.image.disk = policy.fast_create ? names::DiskState::wanted : names::DiskState::as_stored;
    inode.image.error.clear();
    inode.image.lineage.reset();
    inode.image.findings.reset();
    if (policy.key) take_sharing_away(image, inode);
    inode.modified = inode.changed = now();
    Tree::put(txn, image.ino, inode);
    txn.erase(make_key(Table::replication, image.ino.value()));
    RK_TRY(txn.commit());
  }
  filler_.forget(image.ino);
  store_.layers().forget(released);
  image.top = std::move(top);
  return {};
}

void Images::take_sharing_away(Image& image, InodeRecord& inode) {
  if (inode.permissions & ~kOwnerOnly) image.lost_sharing.store(true);
  inode.permissions &= kOwnerOnly;
}

void Images::announce_permissions(Image& image) {
  if (image.lost_sharing.exchange(false) && observer_) observer_->permissions_changed(image.ino);
}

Result<names::Policy> Images::policy_of_new_content(const Image& image) const {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(image.ino));
  const auto directory = tree_.get(inode.parent);
  if (directory) return directory->policy;
  // An image that is deleted but open may outlive its directory.
  if (directory.error().code == Errc::stale) return policy_behind(image, inode);
  return fail(directory.error());
}

names::Policy Images::policy_behind(const Image& image, const InodeRecord& inode) {
  names::Policy policy;
  policy.key = image.top->made_as().key;
  policy.fast_create = inode.image.disk != names::DiskState::as_stored;
  return policy;
}

// --- content ---------------------------------------------------------------------------------------------------

Status Images::may_change(OpenFile& file) {
  RK_TRY(store_.health().may_write());
  Lock lock(file.mutex);
  if (file.refused) return fail(*file.refused);
  return {};
}

void Images::mark_unflushed(OpenFile& file) {
  Lock lock(file.mutex);
  if (!std::exchange(file.unflushed, true)) file.image->unflushed.fetch_add(1);
}

blocks::Layer::Touch Images::touch(Image& image) const {
  image.changes.fetch_add(1);
  return [this, ino = image.ino](WriteTxn& txn) -> Status {
    initializer_.written(ino);
    RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
    inode.modified = inode.changed = now();
    inode.image.findings.reset();
    if (inode.image.state == ImageState::normal) inode.image.state = ImageState::normal_uninitialized;
    Tree::put(txn, ino, inode);
    return {};
  };
}

Result<std::size_t> Images::read(OpenFile& file, std::uint64_t offset, ByteSpan out) {
  std::shared_ptr<blocks::Layer> layer;
  {
    SharedLock lock(file.image->mutex);
    if (file.image->truncating) return 0;
    layer = file.image->top;
  }
  RK_TRY(layer->may_use_key());
  const std::uint64_t size = layer->size();
  if (offset >= size) return 0;
  out = out.first(std::min<std::uint64_t>(out.size(), size - offset));
  const replication::Readers::Read goes_first(readers_);
  std::vector<blocks::Taken> taken;
  RK_TRY(layer->read(offset, out, store_.health().is_sound() ? &taken : nullptr));
  copy_on_read_.offer(taken, offset, out);
  if (file.recording && file.recording->note(*layer, offset, out.size())) keep_profile(*file.recording);
  return out.size();
}

Result<std::size_t> Images::write(OpenFile& file, std::uint64_t offset, ByteView bytes) {
  RK_TRY(may_change(file));
  if (offset > kMostSize || bytes.size() > kMostSize - offset) return fail(Errc::too_large, "an image has at most 16 TiB");
  if (bytes.empty()) return 0;
  mark_unflushed(file);
  RK_TRY(with_writable(*file.image, [&](const auto& layer) { return layer->write(offset, bytes, touch(*file.image)); }));
  return bytes.size();
}

Status Images::resize(Ino ino, std::uint64_t size, OpenFile* file, const Caller& caller) {
  RK_TRY(store_.health().may_write());
  if (size > kMostSize) return fail(Errc::too_large, "an image has at most 16 TiB");
  OpenFilePtr opened;
  if (!file) {
    RK_TRY_ASSIGN(opened, open(ino, O_RDWR, caller));
    file = opened.get();
  }
  RK_TRY(may_change(*file));
  mark_unflushed(*file);
  Image& image = *file->image;
  {
    UniqueLock lock(image.mutex);
    if (size == 0 && !image.truncating && image.top->size() > 0) {
      RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
      return replace_content(image, policy_behind(image, inode));
    }
  }
  return with_writable(image, [&](const auto& layer) { return layer->resize(size, touch(image)); });
}

Status Images::allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) {
  RK_TRY(may_change(file));
  if (size == 0) return fail(Errc::invalid, "a range must not be empty");
  if (offset > kMostSize || size > kMostSize - offset) return fail(Errc::too_large, "an image has at most 16 TiB");
  mark_unflushed(file);
  return with_writable(*file.image, [&](const auto& layer) -> Status {
    const auto touched = touch(*file.image);
    if (what != Allocate::reserve) RK_TRY(layer->zero(offset, size, touched));
    if (!keep_size && offset + size > layer->size()) RK_TRY(layer->resize(offset + size, touched));
    return {};
  });
}

Result<std::uint64_t> Images::seek(OpenFile& file, std::uint64_t offset, Seek what) {
  std::shared_ptr<blocks::Layer> layer;
  {
    SharedLock lock(file.image->mutex);
    if (file.image->truncating) return fail(Errc::beyond_end);
    layer = file.image->top;
  }
  RK_TRY(layer->may_use_key());
  const std::uint64_t size = layer->size();
  if (offset >= size) return fail(Errc::beyond_end);
  if (what == Seek::hole) return layer->find_hole(offset);
  RK_TRY_ASSIGN(const std::uint64_t found, layer->find_data(offset));
  if (found >= size) return fail(Errc::beyond_end);
  return found;
}

Status Images::flush(OpenFile& file) {
  bool refused = false;
  std::optional<Stitch> stitch;
  {
    Lock lock(file.mutex);
    refused = file.refused.has_value();
    stitch = std::exchange(file.stitch, std::nullopt);
  }
  Image& image = *file.image;
  Status ended;
  if (stitch) {
    ended = caught([&] { return end_stitch(image, *stitch); });
    filler_.let_go(image.ino);
  }
  {
    Lock lock(file.mutex);
    if (std::exchange(file.unflushed, false)) {
      image.unflushed.fetch_sub(1);
      initializer_.touched(image.ino);
    }
  }
  RK_TRY(ended);
  if (!refused) {
    {
      UniqueLock lock(image.mutex);
      if (file.truncates && image.truncating) RK_TRY(make_writable(image));
    }
    announce_permissions(image);
    return file.fast_create.load() ? become_disk(image, file.uid) : Status{};
  }
  // A target that a refused copy made, and that is still empty, goes before the copier's close returns.
  {
    SharedLock lock(image.mutex);
    if (!file.created || image.top->size() > 0) return {};
  }
  const auto named = tree_.lookup(file.parent, file.name);
  if (!named || *named != image.ino) return {};
  RK_TRY(tree_.unlink(file.parent, file.name));
  if (observer_) observer_->entry_removed(file.parent, file.name);
  return {};
}

Status Images::sync(OpenFile& file) {
  if (file.truncates && may_change(file)) {
    UniqueLock lock(file.image->mutex);
    if (file.image->truncating) RK_TRY(make_writable(*file.image));
  }
  std::shared_ptr<blocks::Layer> layer;
  {
    SharedLock lock(file.image->mutex);
    layer = file.image->top;
  }
  return store_.checkpointer().sync_journal({layer});
}

Result<std::uint64_t> Images::size_of(Ino ino, const InodeRecord& inode) {
  if (const ImagePtr image = find_open(ino)) {
    SharedLock lock(image->mutex);
    return image->truncating ? 0 : image->top->size();
  }
  RK_TRY_ASSIGN(const LayerRegistry::Sizes sizes, store_.layers().sizes_of(inode.image.layer));
  return sizes.content;
}

ImageState Images::state_of(Ino ino, const InodeRecord& inode) {
  if (inode.image.state != ImageState::normal && inode.image.state != ImageState::normal_uninitialized) {
    const auto error = filler_.error_of(ino);
    if (!error) return inode.image.state;
    return error->empty() ? ImageState::replicating : ImageState::error;
  }
  const ImagePtr image = find_open(ino);
  return image && image->unflushed.load() > 0 ? ImageState::creating : inode.image.state;
}

bool Images::is_settled(Ino ino, const InodeRecord& inode) {
  if (state_of(ino, inode) != ImageState::normal || initializer_.is_awaited(ino)) return false;
  const ImagePtr image = find_open(ino);
  return !image || image->creators.load() == 0;
}

std::optional<names::Findings> Images::findings_of(Ino ino, const InodeRecord& inode) {
  if (const ImagePtr image = find_open(ino)) {
    SharedLock lock(image->mutex);
    if (image->truncating) return std::nullopt;  // readers see no content already
  }
  return inode.image.findings;
}

}  // namespace rekeyfs::images
