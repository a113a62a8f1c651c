#include "engine/namespace/placement.h"

#include "engine/blocks/layer_record.h"
#include "engine/namespace/tree.h"

namespace rekeyfs::names {

namespace {

constexpr std::string_view kTrash = ".Trash";

// Whether the image is what a copy into a directory of this policy would be.
bool fits(const ImageRecord& image, const std::optional<kms::KeyId>& key, const Policy& policy) {
  const DiskState made_otherwise = policy.fast_create ? DiskState::as_stored : DiskState::wanted;
  return key == policy.key && image.disk != made_otherwise;
}

}  // namespace

template <typename Is>
Result<bool> Placement::any_upwards(Ino directory, Is is) const {
  for (;;) {
    const auto inode = tree_.get(directory);
    if (!inode && inode.error().code == Errc::stale) return false;
    if (!inode) return fail(inode.error());
    if (is(*inode)) return true;
    if (directory == kRootIno) return false;
    directory = inode->parent;
  }
}

// --- encrypted only --------------------------------------------------------------------------------------------

Result<bool> Placement::is_encrypted_only(Ino directory) const {
  return any_upwards(directory, [](const InodeRecord& inode) { return inode.policy.encrypted_only; });
}

Status Placement::may_hold_plain(Ino directory) const {
  RK_TRY_ASSIGN(const bool encrypted_only, is_encrypted_only(directory));
  if (!encrypted_only) return {};
  return fail(Errc::not_permitted, "nothing plain may come to be in " + tree_.path_of(directory) +
                                       ", where user.rekeyfs.encrypted_only is in force: the directory must have a user.rekeyfs.key");
}

// A copy gets the key of the directory, if it has one. What is plain already below a directory that is encrypted only
// may move there.
Status Placement::may_come_in_plain(Ino from, Ino to, const Policy& policy) const {
  const Status may = may_hold_plain(to);
  if (may || may.error().code != Errc::not_permitted) return may;
  RK_TRY_ASSIGN(const bool is_inside, is_encrypted_only(from));
  if (is_inside) return {};
  return policy.key ? fail(Errc::cross_policy, "the image is plain and the directory is encrypted only: copy the image instead") : may;
}

// --- trash -----------------------------------------------------------------------------------------------------

bool Placement::is_trash(const InodeRecord& directory) const {
  const std::string owner = std::to_string(directory.uid);
  if (directory.name == std::string(kTrash) + "-" + owner) return true;
  if (directory.name != owner) return false;
  const auto above = tree_.get(directory.parent);
  return above && above->name == kTrash;
}

Result<bool> Placement::is_in_trash(Ino directory) const {
  return any_upwards(directory, [this](const InodeRecord& inode) { return is_trash(inode); });
}

// --- moves -----------------------------------------------------------------------------------------------------

Result<std::optional<kms::KeyId>> Placement::key_of(const InodeRecord& image) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(catalog::make_key(catalog::Table::layer, image.image.layer.value())));
  if (!bytes) return fail(Errc::corrupt, "layer " + std::to_string(image.image.layer.value()) + " has no record");
  RK_TRY_ASSIGN(blocks::LayerRecord layer, blocks::LayerRecord::decode(*bytes));
  return std::move(layer.key);
}

// An image leaves the trash by its own key, because the trash's policy says nothing about it.
Result<bool> Placement::may_keep_its_key(const InodeRecord& image, const std::optional<kms::KeyId>& key, Ino from, Ino to) const {
  RK_TRY_ASSIGN(const bool to_trash, is_in_trash(to));
  if (to_trash) return true;
  RK_TRY_ASSIGN(const InodeRecord target, tree_.get(to));
  RK_TRY_ASSIGN(const bool from_trash, is_in_trash(from));
  if (from_trash) return fits(image.image, key, target.policy);
  RK_TRY_ASSIGN(const InodeRecord source, tree_.get(from));
  return source.policy.treats_alike(target.policy);
}

Status Placement::may_move_image(const InodeRecord& image, Ino from, Ino to) const {
  if (from == to) return {};
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> key, key_of(image));
  RK_TRY_ASSIGN(const InodeRecord source, tree_.get(from));
  RK_TRY_ASSIGN(const InodeRecord target, tree_.get(to));
  if (image.image.is_protected && !source.policy.treats_alike(target.policy))
    return fail(Errc::not_permitted, "the image is protected and cannot move to a directory with another policy: remove "
                                     "user.rekeyfs.protected first");
  if (!key) RK_TRY(may_come_in_plain(from, to, target.policy));
  RK_TRY_ASSIGN(const bool keeps, may_keep_its_key(image, key, from, to));
  if (keeps) return {};
  return fail(Errc::cross_policy, "the directories have different policies: copy the image instead");
}

// A directory moves with its policy and with what is in it, which may be plain.
Status Placement::may_move_directory(Ino directory, Ino to) const {
  RK_TRY_ASSIGN(const bool into, is_encrypted_only(to));
  if (!into) return {};
  RK_TRY_ASSIGN(const bool is_inside, is_encrypted_only(directory));
  if (is_inside) return {};
  return fail(Errc::cross_policy, "a directory does not move into one that is encrypted only: copy it instead");
}

}  // namespace rekeyfs::names
