#include "engine/services/name_service.h"

#include <algorithm>

namespace rekeyfs::services {

using images::kRekeyfsPrefix;
using names::InodeRecord;
using names::Tree;

namespace {

constexpr std::size_t kMaxXattrName = 255;
constexpr std::size_t kMaxXattrValue = 65536;
constexpr std::size_t kSmallValue = 1024;  // maximum bytes of a value that may be set on a full disk
constexpr std::size_t kGrowingValue = 64;  // bytes reported by a size query for values that change by themselves

bool is_ours(std::string_view name) { return name.substr(0, kRekeyfsPrefix.size()) == kRekeyfsPrefix; }

Status check_xattr_name(std::string_view name) {
  if (name.substr(0, 5) != "user.")
    return fail(Errc::not_supported, "rekeyfs stores extended attributes of the user namespace only");
  if (name.size() == 5) return fail(Errc::invalid, "the name of the attribute is empty");
  if (name.size() > kMaxXattrName) return fail(Errc::small_buffer, "an attribute's name has at most 255 bytes");
  return {};
}

}  // namespace

Result<Attributes> NameService::lookup(Ino parent, std::string_view name) {
  RK_TRY_ASSIGN(const Ino ino, tree_.lookup(parent, name));
  return getattr(ino);
}

Result<Ino> NameService::resolve(std::string_view path) {
  Ino ino = kRootIno;
  while (!path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    if (const std::string_view name = path.substr(0, slash); !name.empty()) {
      RK_TRY_ASSIGN(ino, tree_.lookup(ino, name));
    }
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return ino;
}

Result<Ino> NameService::parent_of(Ino directory) {
  const auto inode = tree_.get(directory);
  if (inode) return inode->parent;
  const auto removed = tree_.removed().find(directory);
  return removed ? Result<Ino>(removed->parent) : fail(inode.error());
}

Result<Attributes> NameService::getattr(Ino ino) {
  auto found = status_.getattr(ino);
  if (found || found.error().code != Errc::stale) return found;
  const auto removed = tree_.removed().find(ino);
  return removed ? removed->attributes : found;
}

Result<Attributes> NameService::setattr(Ino ino, const AttributeChange& wanted, const Caller& caller, OpenFile* file) {
  const Status changed = change(ino, wanted, caller, file);
  const bool is_removed = !changed && changed.error().code == Errc::stale && tree_.removed().change(ino, wanted);
  if (!changed && !is_removed) return fail(changed.error());
  return getattr(ino);
}

Status NameService::change(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file) {
  RK_TRY(store_.may_change());
  if (change.size) RK_TRY(files_.resize(ino, *change.size, file, caller));
  // Evaluated before the transaction, because the registry of open images must not be called within one.
  bool settled = false;
  if (change.permissions) {
    RK_TRY_ASSIGN(const InodeRecord seen, tree_.get(ino));
    settled = seen.kind == NodeKind::image && status_.is_settled(ino, seen);
  }
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
  RK_TRY(apply(change, settled, inode));
  Tree::put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

Result<Attributes> NameService::make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) {
  RK_TRY(store_.may_add());
  RK_TRY_ASSIGN(const quota::Charge charged, quotas_.charge_below(parent, {0, 1}));
  RK_TRY_ASSIGN(const Ino ino, tree_.make_directory(parent, name, mode, caller));
  return getattr(ino);
}

Result<Attributes> NameService::make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) {
  RK_TRY(store_.may_add());
  RK_TRY_ASSIGN(const quota::Charge charged, quotas_.charge_below(parent, {0, 1}));
  RK_TRY_ASSIGN(const Ino ino, tree_.make_symlink(parent, name, target, caller));
  return getattr(ino);
}

Result<std::string> NameService::read_symlink(Ino ino) {
  RK_TRY_ASSIGN(InodeRecord inode, tree_.get(ino));
  if (inode.kind != NodeKind::symlink) return fail(Errc::invalid);
  return std::move(inode.target);
}

Result<Attributes> NameService::link(Ino ino, Ino parent, std::string_view name) {
  RK_TRY(store_.may_add());
  RK_TRY_ASSIGN(const quota::Charge charged, quotas_.charge_link(ino, parent));
  RK_TRY(tree_.link(ino, parent, name));
  return getattr(ino);
}

Status NameService::unlink(Ino parent, std::string_view name) {
  RK_TRY(store_.may_write());
  return tree_.unlink(parent, name);
}

Status NameService::remove_directory(Ino parent, std::string_view name) {
  RK_TRY(store_.may_write());
  return tree_.remove_directory(parent, name);
}

Status NameService::rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how,
                           const Caller& caller) {
  RK_TRY(store_.may_change());
  RK_TRY_ASSIGN(quota::Charge there, charge_move(parent, name, new_parent));
  RK_TRY_ASSIGN(quota::Charge back, how == RenameMode::exchange ? charge_move(new_parent, new_name, parent) : quota::Charge());
  const Status renamed = replacements_.rename(parent, name, new_parent, new_name, how, caller);
  if (!renamed) {
    there.withdraw();
    back.withdraw();
  }
  return renamed;
}

// Whether the rename is allowed at all is the tree's question, so a missing name is not refused here.
Result<quota::Charge> NameService::charge_move(Ino parent, std::string_view name, Ino new_parent) {
  if (!quotas_.is_used() || parent == new_parent) return quota::Charge();
  const auto node = tree_.lookup(parent, name);
  if (!node && node.error().code == Errc::not_found) return quota::Charge();
  if (!node) return fail(node.error());
  return quotas_.charge_move(*node, parent, new_parent);
}

Status NameService::apply(const AttributeChange& change, bool settled, InodeRecord& inode) {
  if (change.permissions) RK_TRY(change_permissions(*change.permissions & 07777, settled, inode));
  if (change.uid) inode.uid = *change.uid;
  if (change.gid) inode.gid = *change.gid;
  if (change.accessed) inode.accessed = *change.accessed;
  if (change.modified) inode.modified = *change.modified;
  inode.changed = change.changed.value_or(now());
  return {};
}

// An encrypted image cannot be shared. Copying tools call chmod right after writing and must not fail: until the image
// is settled the bits are silently dropped; afterwards adding them is an error.
Status NameService::change_permissions(mode_t wanted, bool settled, InodeRecord& inode) {
  if (inode.kind == NodeKind::image && (wanted & ~images::kOwnerOnly)) {
    RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(inode.image.layer));
    if (layer.key) {
      if (settled)
        return fail(Errc::not_permitted, "an encrypted image cannot be shared: copy it into a plain directory and share that");
      wanted &= images::kOwnerOnly;
    }
  }
  inode.permissions = wanted;
  return {};
}

// --- extended attributes ---------------------------------------------------------------------------------------

Result<std::string> NameService::getxattr(Ino ino, std::string_view name) {
  RK_TRY(check_xattr_name(name));
  if (is_ours(name)) return xattrs_.get(ino, name.substr(kRekeyfsPrefix.size()));
  auto value = tree_.getxattr(ino, name);
  const bool nobody_set_it = !value && value.error().code == Errc::no_attribute;
  return nobody_set_it && name == images::kMimeType ? xattrs_.detected_mime_type(ino) : value;
}

Result<std::size_t> NameService::xattr_size(Ino ino, std::string_view name) {
  RK_TRY_ASSIGN(const std::string value, getxattr(ino, name));
  return is_ours(name) ? std::max(value.size(), kGrowingValue) : value.size();
}

Result<std::vector<std::string>> NameService::listxattr(Ino ino) {
  RK_TRY(tree_.get(ino));
  return tree_.listxattr(ino);
}

Status NameService::setxattr(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller) {
  RK_TRY(store_.may_change());
  RK_TRY(check_xattr_name(name));
  if (is_ours(name)) return recorded(ino, xattrs_.set(ino, name.substr(kRekeyfsPrefix.size()), value, how, caller), caller);
  if (value.size() > kMaxXattrValue) return fail(Errc::small_buffer, "an attribute's value has at most 64 KiB");
  if (value.size() > kSmallValue) RK_TRY(store_.storage().room_to_add(value.size()));
  RK_TRY_ASSIGN(const quota::Charge charged, quotas_.charge_attribute(ino, name.size() + value.size()));
  return tree_.setxattr(ino, name, value, how);
}

Status NameService::removexattr(Ino ino, std::string_view name, const Caller& caller) {
  RK_TRY(store_.may_change());
  RK_TRY(check_xattr_name(name));
  if (is_ours(name)) return recorded(ino, xattrs_.remove(ino, name.substr(kRekeyfsPrefix.size()), caller), caller);
  return tree_.removexattr(ino, name);
}

// Changes of policies that were refused are in the audit log, as those that were made.
Status NameService::recorded(Ino ino, Status outcome, const Caller& caller) {
  if (outcome) return outcome;
  Event order;
  order.path = tree_.path_of(ino);
  refusals_.record_order(std::move(order), caller, outcome.error());
  return outcome;
}

}  // namespace rekeyfs::services
