#include "engine/services/file_service.h"

#include <fcntl.h>

#include "engine/base/exceptions.h"
#include "engine/keys/key_access.h"

namespace rekeyfs::services {

using images::Image;
using images::ImageHold;
using images::LayerSwap;
using names::InodeRecord;

// --- opening and closing ---------------------------------------------------------------------------------------

Result<Files::Created> FileService::create(Ino parent, std::string_view name, mode_t mode, int flags, const Caller& caller) {
  RK_TRY(parts_.store.may_add());
  RK_TRY_ASSIGN(const InodeRecord directory, parts_.tree.get(parent));
  const names::Policy& policy = directory.policy;
  const auto path = [&] { return parts_.tree.path_of(parent) + "/" + std::string(name); };
  RK_TRY(policy.key ? parts_.refusals.check_key(policy.key, caller, path) : check_plain(parent, caller, path));
  RK_TRY_ASSIGN(const quota::Charge charged, parts_.quotas.charge_below(parent, {0, 1}));
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(parts_.swaps, policy.key));
  InodeRecord inode;
  inode.kind = NodeKind::image;
  inode.permissions = mode & (policy.key ? images::kOwnerOnly : 07777);
  inode.uid = caller.uid;
  inode.gid = caller.gid;
  RK_TRY_ASSIGN(inode.image.id, crypto::random_uuid());
  inode.image.layer = swap.layer();
  inode.image.state = ImageState::normal_uninitialized;
  inode.image.type = policy.type;
  if (policy.fast_create) inode.image.disk = names::DiskState::wanted;
  Ino ino;
  {
    catalog::WriteTxn txn(parts_.store.catalog());
    RK_TRY_ASSIGN(ino, parts_.tree.add(txn, parent, name, inode));
    swap.put_empty(txn, ino);
    RK_TRY(txn.commit());
  }
  auto created = caught([&] { return open_created(ino, parent, name, flags, caller, policy); });
  // The caller gets no handle: the name must not stay, or a second attempt would find it.
  if (!created) static_cast<void>(parts_.tree.unlink(parent, name, ino));
  return created;
}

Result<Files::Created> FileService::open_created(Ino ino, Ino parent, std::string_view name, int flags, const Caller& caller,
                                                 const names::Policy& policy) {
  RK_TRY_ASSIGN(ImageHold hold, parts_.open.open(ino));
  OpenFilePtr file(new OpenFile(std::move(hold), caller.uid));
  file->creation.emplace(file->image(), parent, name);
  if ((flags & O_ACCMODE) == O_RDWR) file->held_back.emplace(file->image());
  file->fast_create = policy.fast_create;
  RK_TRY(begin_change(*file));
  RK_TRY_ASSIGN(const Attributes attributes, parts_.status.getattr(ino));
  return Created{attributes, std::move(file)};
}

Result<OpenFilePtr> FileService::open(Ino ino, int flags, const Caller& caller) {
  const bool truncates = (flags & O_TRUNC) != 0;
  const int access = flags & O_ACCMODE;
  InodeRecord inode;
  if (access != O_RDONLY || truncates) {
    RK_TRY_ASSIGN(inode, parts_.tree.get(ino));
    RK_TRY(check_changeable(inode));
  }
  RK_TRY_ASSIGN(ImageHold hold, parts_.open.open(ino));
  OpenFilePtr file(new OpenFile(std::move(hold), caller.uid));
  if (access == O_RDWR) file->held_back.emplace(file->image());
  RK_TRY(check_keys(file->image(), truncates, caller));
  if (truncates) RK_TRY(begin_truncation(*file));
  else if (access == O_RDWR) file->boot = parts_.boots.begin(file->image(), inode);
  return file;
}

Status FileService::check_changeable(const InodeRecord& inode) const {
  RK_TRY(parts_.store.may_write());
  if (!inode.image.is_protected) return {};
  return fail(Errc::not_permitted, "the image is protected: remove user.rekeyfs.protected first");
}

Status FileService::check_plain(Ino directory, const Caller& caller, const std::function<std::string()>& path) {
  const Status may = parts_.tree.placement().may_hold_plain(directory);
  if (!may && may.error().code == Errc::not_permitted)
    parts_.refusals.record(images::Refusals::event_of(path(), caller, may.error()));
  return may;
}

Status FileService::check_keys(const Image& image, bool truncates, const Caller& caller) {
  std::optional<kms::KeyId> key, new_key;
  {
    SharedLock lock(image.mutex);
    key = image.top->made_as().key;
    if (truncates) {
      RK_TRY_ASSIGN(const names::Policy policy, parts_.content.policy_of_new_content(image));
      new_key = policy.key;
    }
  }
  const auto path = [&] { return parts_.tree.path_of(image.ino); };
  RK_TRY(parts_.refusals.check_key(key, caller, path));
  if (!truncates) return {};
  if (new_key) return parts_.refusals.check_key(new_key, caller, path);
  RK_TRY_ASSIGN(const InodeRecord inode, parts_.tree.get(image.ino));
  return check_plain(inode.parent, caller, path);
}

// A truncated image, even an empty one, gets the current policy of its directory, but does not become plain by that.
Status FileService::begin_truncation(OpenFile& file) {
  {
    Image& image = file.image();
    UniqueLock lock(image.mutex);
    RK_TRY_ASSIGN(const names::Policy policy, parts_.content.policy_of_new_content(image));
    const bool differs = image.top->made_as().key != policy.key || policy.fast_create;
    if (image.truncations.pending() || image.top->size() > 0 || differs) file.truncation = image.truncations.add();
    file.fast_create = policy.fast_create;
  }
  return begin_change(file);
}

Status FileService::flush(OpenFile& file) {
  const Status ended = parts_.copies.end(file);
  {
    Lock lock(file.mutex);
    file.unflushed.reset();
  }
  RK_TRY(ended);
  if (file.refusal()) return remove_refused(file);
  RK_TRY(parts_.content.finish_truncation(file.image(), file.truncation));
  return file.fast_create.load() ? parts_.fast_create.become_disk(file.image(), file.uid) : Status{};
}

// Deletes the target of a refused copy, if still empty, before the copying process's close returns.
Status FileService::remove_refused(OpenFile& file) {
  {
    SharedLock lock(file.image().mutex);
    if (!file.creation || file.image().top->size() > 0) return {};
  }
  const Status removed = parts_.tree.unlink(file.creation->parent, file.creation->name, file.ino());
  if (!removed && removed.error().code == Errc::not_found) return {};  // renamed or removed meanwhile
  RK_TRY(removed);
  parts_.observer.entry_removed(file.creation->parent, file.creation->name);
  return {};
}

// --- content ---------------------------------------------------------------------------------------------------

Status FileService::begin_change(OpenFile& file) {
  RK_TRY(parts_.store.may_write());
  Lock lock(file.mutex);
  if (file.refused) return fail(*file.refused);
  if (!file.unflushed) file.unflushed.emplace(file.image(), parts_.initializer);
  return {};
}

Result<std::size_t> FileService::write(OpenFile& file, std::uint64_t offset, ByteView bytes) {
  RK_TRY(begin_change(file));
  RK_TRY(parts_.content.write(file.image(), offset, bytes));
  return bytes.size();
}

Status FileService::resize(Ino ino, std::uint64_t size, OpenFile* file, const Caller& caller) {
  if (file) {
    RK_TRY(begin_change(*file));
    return parts_.content.resize(file->image(), size);
  }
  RK_TRY_ASSIGN(const InodeRecord inode, parts_.tree.get(ino));
  RK_TRY(check_changeable(inode));
  RK_TRY_ASSIGN(const ImageHold image, parts_.open.open(ino));
  RK_TRY(check_keys(*image, false, caller));
  const images::Unflushed unflushed(*image, parts_.initializer);
  return parts_.content.resize(*image, size);
}

Status FileService::allocate(OpenFile& file, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) {
  RK_TRY(begin_change(file));
  return parts_.content.allocate(file.image(), what, keep_size, offset, size);
}

Result<std::uint64_t> FileService::copy_range(OpenFile& in, std::uint64_t offset_in, OpenFile& out, std::uint64_t offset_out,
                                              std::uint64_t size, const Caller& caller) {
  RK_TRY(begin_change(out));
  return parts_.copies.copy_range(in, offset_in, out, offset_out, size, caller);
}

Status FileService::sync(OpenFile& file) {
  Image& image = file.image();
  if (parts_.store.may_write() && !file.refusal()) RK_TRY(parts_.content.finish_truncation(image, file.truncation));
  std::shared_ptr<blocks::Layer> layer;
  {
    SharedLock lock(image.mutex);
    layer = image.top;
  }
  return parts_.store.checkpointer().sync_journal({layer});
}

// --- what a new image becomes ----------------------------------------------------------------------------------

Status FileService::choose_target(OpenFile& file, const TargetChoice& choice, const Caller& caller) {
  RK_TRY(begin_change(file));
  if (choice.by == TargetChoice::By::policy && !choice.fast_create) return {};  // keeps what create() chose
  if (!file.creation) return choose_for_replacement(file, choice, caller);
  const auto key = parts_.planner.key_of(choice, file.creation->parent);
  const Status chosen = become(file, key, choice, caller);
  if (chosen) {
    parts_.observer.content_changed(file.ino());  // its permissions changed
    return {};
  }
  const Errc code = chosen.error().code;
  const bool is_rule_of_key = code == Errc::no_key || code == Errc::key_revoked || code == Errc::access_denied;
  if (!is_rule_of_key) return chosen;
  return fail(parts_.copies.refuse(file, images::Refusals::event_of(parts_.tree.path_of(file.ino()), caller, chosen.error())));
}

// A refusal withdraws the truncation, so the image keeps its content.
Status FileService::choose_for_replacement(OpenFile& file, const TargetChoice& choice, const Caller& caller) {
  if (choice.by != TargetChoice::By::plain || choice.fast_create)
    return fail(Errc::not_permitted,
                "only the process that created the image may choose its target: replicate it instead");
  const Status may = may_make_plain(file, caller);
  if (!may) return fail(parts_.copies.refuse(file, images::Refusals::event_of(parts_.tree.path_of(file.ino()), caller, may.error())));
  Image& image = file.image();
  UniqueLock lock(image.mutex);
  if (image.truncations.make_plain(file.truncation)) return {};
  return fail(Errc::not_permitted, "the image has content: only new content can be made plain");
}

Status FileService::may_make_plain(const OpenFile& file, const Caller& caller) const {
  RK_TRY_ASSIGN(const InodeRecord inode, parts_.tree.get(file.ino()));
  if (!caller.is_operator && caller.uid != inode.uid)
    return fail(Errc::not_permitted, "only the owner of the image or an operator may replace its content by plain content");
  if (inode.links > 1)
    return fail(Errc::not_permitted, "the image has several names: remove the others before its content becomes plain");
  return parts_.tree.placement().may_hold_plain(inode.parent);
}

Status FileService::become(OpenFile& file, const Result<std::optional<kms::KeyId>>& key, const TargetChoice& choice, const Caller& caller) {
  if (!key) return fail(key.error());
  RK_TRY(keys::may_use(parts_.store.keys(), *key, caller));
  if (!*key) RK_TRY(check_plain(file.creation->parent, caller, [&] { return parts_.tree.path_of(file.ino()); }));
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(parts_.swaps, *key));
  Image& image = file.image();
  UniqueLock lock(image.mutex);
  if (image.truncations.pending() || image.top->size() > 0 || image.top->base())
    return fail(Errc::not_permitted, "the image has content, so its target is final: replicate it instead");
  if (choice.fast_create) file.fast_create = true;
  names::Policy policy;
  policy.key = *key;
  policy.fast_create = file.fast_create.load();
  return policy.key != image.top->made_as().key || choice.fast_create ? swap.replace(image, policy) : Status{};
}

// --- boot profiles ---------------------------------------------------------------------------------------------

Result<std::optional<BootReads>> FileService::boot_reads(Ino image) {
  RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
  if (!found) return std::optional<BootReads>{};
  BootReads reads;
  reads.recorded = found->profile.recorded;
  reads.bytes = found->profile.bytes();
  for (const boot::Run& run : found->profile.runs)
    reads.ranges.push_back({run.first * boot::BootProfile::kUnit, run.count * boot::BootProfile::kUnit});
  return std::optional(std::move(reads));
}

Status FileService::clear_boot_profile(Ino image, const Caller& caller) {
  RK_TRY(parts_.store.may_change());
  RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
  if (!found) return fail(Errc::no_attribute, "the image has no boot profile: it was not booted yet");
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, parts_.store.layers().record_of(found->layer));
  const Ino holder = layer.owner ? layer.owner : image;
  RK_TRY_ASSIGN(const InodeRecord held, parts_.tree.get(holder));
  if (!caller.is_operator && caller.uid != held.uid)
    return fail(Errc::not_permitted, "the boot profile belongs to " + parts_.tree.path_of(holder) +
                                         ": only the owner of that image or an operator may clear it");
  return parts_.profiles.erase(found->layer);
}

Result<std::optional<boot::BootProfiles::Found>> FileService::boot_profile_of(Ino image) {
  RK_TRY_ASSIGN(const InodeRecord inode, parts_.tree.get(image));
  if (inode.kind != NodeKind::image)
    return fail(Errc::invalid, parts_.tree.path_of(image) + " is not an image: only images have a boot profile");
  return parts_.profiles.find(inode.image.layer);
}

}  // namespace rekeyfs::services
