#include "engine/namespace/tree.h"

#include <sys/stat.h>

#include <algorithm>

#include "engine/base/exceptions.h"
#include "engine/namespace/attribute_record.h"
#include "engine/types/attributes.h"

namespace rekeyfs::names {

using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;

namespace {

Status check_name(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos)
    return fail(Errc::invalid, "a name must not be empty, \".\" or \"..\", nor contain '/' or NUL");
  if (name.size() > kMaxName) return fail(Errc::name_too_long, "a name has at most 255 bytes");
  return {};
}

// The cookie of an entry: the first 63 bits of its hash, plus one, because 0 means the start.
std::uint64_t cookie_of(std::string_view key) { return (Reader(key.substr(9)).get_be64() >> 1) + 1; }

Result<InodeRecord> decode_or_stale(const std::optional<std::string>& bytes) {
  if (!bytes) return fail(Errc::stale, "the file was deleted");
  return InodeRecord::decode(*bytes);
}

Attributes attributes_of_removed(Ino ino, const InodeRecord& inode) {
  Attributes out;
  out.ino = ino;
  out.kind = inode.kind;
  out.permissions = inode.permissions;
  out.links = 0;
  out.uid = inode.uid;
  out.gid = inode.gid;
  out.accessed = inode.accessed;
  out.modified = inode.modified;
  out.changed = inode.changed;
  return out;
}

Status require_directory(const InodeRecord& inode) {
  if (inode.kind != NodeKind::directory) return fail(Errc::not_directory);
  return {};
}

}  // namespace

Result<Tree> Tree::create(catalog::Catalog& catalog, const crypto::Key& root, const Uuid& store) {
  RK_TRY_ASSIGN(const crypto::Key key, crypto::derive_key(root, store, "rekeyfs names"));
  RK_TRY_ASSIGN(crypto::Mac hash, crypto::Mac::create(key));
  return Tree(catalog, std::move(hash));
}

std::vector<std::pair<std::string, std::string>> Tree::initial_records(const Caller& owner) {
  InodeRecord root;
  root.kind = NodeKind::directory;
  root.permissions = 0755;
  root.uid = owner.uid;
  root.gid = owner.gid;
  root.links = 2;
  root.accessed = root.modified = root.changed = now();
  root.parent = kRootIno;
  return {{make_key(Table::inode, kRootIno.value()), root.encode()}};
}

// --- reading ---------------------------------------------------------------------------------------------------

Result<InodeRecord> Tree::get(Ino ino) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_->get(make_key(Table::inode, ino.value())));
  return decode_or_stale(bytes);
}

Result<InodeRecord> Tree::get(const WriteTxn& txn, Ino ino) {
  RK_TRY_ASSIGN(const auto bytes, txn.get(make_key(Table::inode, ino.value())));
  return decode_or_stale(bytes);
}

void Tree::put(WriteTxn& txn, Ino ino, const InodeRecord& inode) {
  txn.put(make_key(Table::inode, ino.value()), inode.encode());
}

std::string Tree::entry_key(Ino parent, std::string_view name) const {
  const std::string where = Writer().put_be64(parent.value()).take();
  return make_key(Table::entry, parent.value(), name_hash_.tag(as_bytes(where), as_bytes(name)));
}

Result<Ino> Tree::lookup(Ino parent, std::string_view name) const {
  if (name.size() > kMaxName) return fail(Errc::name_too_long, "a name has at most 255 bytes");
  RK_TRY_ASSIGN(const auto bytes, catalog_->get(entry_key(parent, name)));
  if (!bytes) return fail(Errc::not_found);
  RK_TRY_ASSIGN(const Entry entry, Entry::decode(*bytes));
  return entry.ino;
}

Result<std::vector<DirectoryEntry>> Tree::list(Ino directory, std::uint64_t cookie, std::size_t most) const {
  const std::string prefix = make_key(Table::entry, directory.value());
  const std::string from = cookie == 0 ? prefix : prefix + Writer().put_be64(cookie << 1).take();
  std::vector<DirectoryEntry> entries;
  Status decoded;
  RK_TRY(catalog_->scan(prefix, from, [&](std::string_view key, std::string_view value) {
    if (entries.size() >= most) return false;
    auto entry = Entry::decode(value);
    if (entry) entries.push_back({std::move(entry->name), entry->ino, entry->kind, cookie_of(key)});
    else decoded = fail(entry.error());
    return decoded.has_value();
  }));
  RK_TRY(decoded);
  return entries;
}

std::string Tree::path_of(Ino ino) const {
  std::string path;
  for (int depth = 0; ino != kRootIno && depth < 4096; ++depth) {
    const auto inode = get(ino);
    if (!inode) return "?" + path;
    path = "/" + inode->name + path;
    ino = inode->parent;
  }
  return path.empty() ? "/" : path;
}

Result<std::optional<Tree::Entry>> Tree::find(const WriteTxn& txn, Ino parent, std::string_view name) const {
  RK_TRY_ASSIGN(const auto bytes, txn.get(entry_key(parent, name)));
  if (!bytes) return std::optional<Entry>{};
  RK_TRY_ASSIGN(Entry entry, Entry::decode(*bytes));
  return std::optional(std::move(entry));
}

Result<Tree::Entry> Tree::require(const WriteTxn& txn, Ino parent, std::string_view name) const {
  RK_TRY(check_name(name));
  RK_TRY_ASSIGN(std::optional<Entry> entry, find(txn, parent, name));
  if (!entry) return fail(Errc::not_found);
  return std::move(*entry);
}

Result<bool> Tree::is_empty(Ino directory) const {
  RK_TRY_ASSIGN(const auto entries, list(directory, 0, 1));
  return entries.empty();
}

Result<bool> Tree::is_below(Ino node, Ino ancestor) const {
  while (node != ancestor) {
    if (node == kRootIno) return false;
    RK_TRY_ASSIGN(const InodeRecord inode, get(node));
    node = inode.parent;
  }
  return true;
}

// --- changing --------------------------------------------------------------------------------------------------

void Tree::put_entry(WriteTxn& txn, Ino parent, const Entry& entry) const {
  txn.put(entry_key(parent, entry.name), entry.encode());
}

void Tree::erase_entry(WriteTxn& txn, Ino parent, std::string_view name) const { txn.erase(entry_key(parent, name)); }

Status Tree::touch_directory(WriteTxn& txn, Ino directory, int links_delta) const {
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, directory));
  inode.modified = inode.changed = now();
  inode.links = static_cast<std::uint32_t>(static_cast<int>(inode.links) + links_delta);
  put(txn, directory, inode);
  return {};
}

Result<Ino> Tree::add(WriteTxn& txn, Ino parent, std::string_view name, InodeRecord& inode) const {
  RK_TRY(check_name(name));
  RK_TRY_ASSIGN(const InodeRecord directory, get(txn, parent));
  RK_TRY(require_directory(directory));
  if (directory.links == 0) return fail(Errc::not_found, "the directory was removed");
  RK_TRY_ASSIGN(const std::optional<Entry> there, find(txn, parent, name));
  if (there) return fail(Errc::exists);
  inode.links = inode.kind == NodeKind::directory ? 2 : 1;
  inode.accessed = inode.modified = inode.changed = now();
  inode.parent = parent;
  inode.name = name;
  if (directory.permissions & S_ISGID) {  // as on other file systems
    inode.gid = directory.gid;
    if (inode.kind == NodeKind::directory) inode.permissions |= S_ISGID;
  }
  const Ino ino = txn.new_ino();
  put(txn, ino, inode);
  put_entry(txn, parent, {std::string(name), ino, inode.kind});
  RK_TRY(touch_directory(txn, parent, inode.kind == NodeKind::directory ? 1 : 0));
  return ino;
}

Result<Ino> Tree::make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) {
  WriteTxn txn(*catalog_);
  RK_TRY_ASSIGN(const InodeRecord above, get(txn, parent));
  InodeRecord inode;
  inode.kind = NodeKind::directory;
  inode.permissions = mode & 07777;
  inode.uid = caller.uid;
  inode.gid = caller.gid;
  inode.policy = above.policy;
  inode.policy.encrypted_only = false;  // in force below the directory that has it, and only as long as it has it
  RK_TRY_ASSIGN(const Ino ino, add(txn, parent, name, inode));
  RK_TRY(txn.commit());
  return ino;
}

Result<Ino> Tree::make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) {
  if (target.empty()) return fail(Errc::not_found, "the target of a symbolic link is empty");
  if (target.size() > kMaxTarget) return fail(Errc::name_too_long, "a symbolic link's target has at most 4095 bytes");
  WriteTxn txn(*catalog_);
  InodeRecord inode;
  inode.kind = NodeKind::symlink;
  inode.permissions = 0777;
  inode.uid = caller.uid;
  inode.gid = caller.gid;
  inode.target = target;
  RK_TRY_ASSIGN(const Ino ino, add(txn, parent, name, inode));
  RK_TRY(txn.commit());
  return ino;
}

Status Tree::link(Ino ino, Ino parent, std::string_view name) {
  RK_TRY(check_name(name));
  WriteTxn txn(*catalog_);
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, ino));
  if (inode.kind == NodeKind::directory) return fail(Errc::not_permitted, "a directory cannot have hard links");
  if (inode.links == 0) return fail(Errc::not_found, "the file was deleted");
  if (inode.links >= kMaxLinks) return fail(Errc::too_many_links);
  RK_TRY_ASSIGN(const InodeRecord to, get(txn, parent));
  RK_TRY(require_directory(to));
  if (to.links == 0) return fail(Errc::not_found, "the directory was removed");
  if (inode.kind == NodeKind::image) RK_TRY(placement().may_move_image(inode, inode.parent, parent));
  RK_TRY_ASSIGN(const std::optional<Entry> there, find(txn, parent, name));
  if (there) return fail(Errc::exists);
  ++inode.links;
  inode.changed = now();
  put(txn, ino, inode);
  put_entry(txn, parent, {std::string(name), ino, inode.kind});
  RK_TRY(touch_directory(txn, parent, 0));
  RK_TRY(txn.commit());
  return {};
}

Status Tree::in_unlinking_txn(const UnlinkingChange& change) {
  Unlinking unlinking;
  for (;;) {
    const Status status = try_unlinking(change, unlinking);
    if (!unlinking.lost) return status;
    RK_TRY_ASSIGN(unlinking.found, other_name(*std::exchange(unlinking.lost, std::nullopt)));
    unlinking.searched = true;
  }
}

// Runs `change` in a transaction during which no image is opened or closed, and tells the reaper whether it was
// committed.
Status Tree::try_unlinking(const UnlinkingChange& change, Unlinking& unlinking) {
  Lock opening(reaper_->opening());
  const Status status = caught([&]() -> Status {
    WriteTxn txn(*catalog_);
    RK_TRY(change(txn, unlinking));
    RK_TRY(txn.commit());
    return {};
  });
  reaper_->unlink_committed(status.has_value());
  if (status && unlinking.moved) moves_->fetch_add(1);
  return status;
}

// Called when a name was removed; removes the node with its last name.
Status Tree::drop_name(WriteTxn& txn, Ino parent, const Entry& entry, Unlinking& unlinking) {
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, entry.ino));
  inode.changed = now();
  inode.links = entry.kind == NodeKind::directory ? 0 : inode.links - 1;
  if (inode.links > 0) {
    if (inode.parent == parent && inode.name == entry.name) RK_TRY(rename_record(txn, {parent, entry}, inode, unlinking));
    put(txn, entry.ino, inode);
    return {};
  }
  // Before the record is erased, because other callers may ask for the node at any time.
  removed_->add({attributes_of_removed(entry.ino, inode), inode.parent});
  if (entry.kind == NodeKind::image) return reaper_->image_unlinked(txn, entry.ino, inode);
  RK_TRY(erase_xattrs(txn, entry.ino));
  if (inode.quota.is_set()) txn.erase(make_key(Table::quota, entry.ino.value()));
  txn.erase(make_key(Table::inode, entry.ino.value()));
  return {};
}

Status Tree::rename_record(const WriteTxn& txn, const Named& gone, InodeRecord& inode, Unlinking& unlinking) const {
  std::optional<Named> other = unlinking.found;
  if (other) {
    RK_TRY_ASSIGN(const std::optional<Entry> there, find(txn, other->parent, other->entry.name));
    if (!there || there->ino != gone.entry.ino) other.reset();
  }
  if (!other && !unlinking.searched) {
    unlinking.lost = gone;
    return fail(Errc::busy, "another name of the file is looked for");
  }
  if (!other) {
    RK_TRY_ASSIGN(other, other_name(gone));
  }
  if (!other) return {};
  unlinking.moved = unlinking.moved || inode.parent != other->parent;
  inode.parent = other->parent;
  inode.name = other->entry.name;
  return {};
}

// Searches the same directory first, where the other name usually is.
Result<std::optional<Tree::Named>> Tree::other_name(const Named& gone) const {
  const std::string gone_key = entry_key(gone.parent, gone.entry.name);
  std::optional<Named> found;
  for (const std::string& names : {make_key(Table::entry, gone.parent.value()), make_key(Table::entry)}) {
    RK_TRY(catalog_->scan(names, "", [&](std::string_view key, std::string_view value) {
      auto entry = Entry::decode(value);
      if (!entry || entry->ino != gone.entry.ino || key == gone_key) return true;
      found = Named{Ino{Reader(key.substr(1)).get_be64()}, std::move(*entry)};
      return false;
    }));
    if (found) break;
  }
  return found;
}

Status Tree::unlink(Ino parent, std::string_view name, Ino only) {
  return in_unlinking_txn([&](WriteTxn& txn, Unlinking& unlinking) -> Status {
    RK_TRY_ASSIGN(const Entry entry, require(txn, parent, name));
    if (only && entry.ino != only) return fail(Errc::not_found, "the name stands for another file by now");
    if (entry.kind == NodeKind::directory) return fail(Errc::is_directory);
    RK_TRY(check_protected(txn, entry, "the image is protected"));
    erase_entry(txn, parent, name);
    RK_TRY(touch_directory(txn, parent, 0));
    return drop_name(txn, parent, entry, unlinking);
  });
}

Status Tree::remove_directory(Ino parent, std::string_view name) {
  WriteTxn txn(*catalog_);
  RK_TRY_ASSIGN(const Entry entry, require(txn, parent, name));
  if (entry.kind != NodeKind::directory) return fail(Errc::not_directory);
  RK_TRY_ASSIGN(const bool empty, is_empty(entry.ino));
  if (!empty) return fail(Errc::not_empty);
  erase_entry(txn, parent, name);
  RK_TRY(touch_directory(txn, parent, -1));
  Unlinking unlinking;  // unused: a directory has only one name
  RK_TRY(drop_name(txn, parent, entry, unlinking));
  RK_TRY(txn.commit());
  return {};
}

Status Tree::check_protected(const WriteTxn& txn, const Entry& entry, std::string_view why) const {
  RK_TRY_ASSIGN(const InodeRecord inode, get(txn, entry.ino));
  if (!inode.image.is_protected) return {};
  return fail(Errc::not_permitted, std::string(why) + ": remove user.rekeyfs.protected first");
}

Status Tree::check_move(const WriteTxn& txn, const Entry& entry, Ino from, Ino to) const {
  if (from == to || entry.kind == NodeKind::symlink) return {};
  if (entry.kind == NodeKind::directory) return placement().may_move_directory(entry.ino, to);
  RK_TRY_ASSIGN(const InodeRecord image, get(txn, entry.ino));
  return placement().may_move_image(image, from, to);
}

// Content that replaces encrypted content gets the key of the directory or, if that has none, the key of what it replaces.
Result<std::optional<Tree::Exposure>> Tree::exposure_by(const WriteTxn& txn, const Entry& source, const Entry& target, Ino directory) const {
  if (source.kind != NodeKind::image || target.kind != NodeKind::image) return std::optional<Exposure>{};
  RK_TRY_ASSIGN(const InodeRecord replaced, get(txn, target.ino));
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> key, placement().key_of(replaced));
  if (!key) return std::optional<Exposure>{};
  RK_TRY_ASSIGN(const InodeRecord replacement, get(txn, source.ino));
  RK_TRY_ASSIGN(const std::optional<kms::KeyId> own_key, placement().key_of(replacement));
  if (own_key) return std::optional<Exposure>{};
  RK_TRY_ASSIGN(const InodeRecord above, get(txn, directory));
  return std::optional(Exposure{source.ino, above.policy.key.value_or(*key)});
}

Status Tree::move(WriteTxn& txn, Entry entry, Ino from, Ino to, std::string_view new_name) const {
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, entry.ino));
  inode.parent = to;
  inode.name = new_name;
  inode.changed = now();
  put(txn, entry.ino, inode);
  entry.name = new_name;
  put_entry(txn, to, entry);
  const int delta = entry.kind == NodeKind::directory && from != to ? 1 : 0;
  RK_TRY(touch_directory(txn, from, -delta));
  return touch_directory(txn, to, delta);
}

// Removes the target's name.
Status Tree::replace(WriteTxn& txn, Ino directory, const Entry& target, const Entry& source, Unlinking& unlinking) {
  const bool to_directory = target.kind == NodeKind::directory;
  if (to_directory && source.kind != NodeKind::directory) return fail(Errc::is_directory);
  if (!to_directory && source.kind == NodeKind::directory) return fail(Errc::not_directory);
  if (to_directory) {
    RK_TRY_ASSIGN(const bool empty, is_empty(target.ino));
    if (!empty) return fail(Errc::not_empty);
    RK_TRY(touch_directory(txn, directory, -1));
  }
  return drop_name(txn, directory, target, unlinking);
}

Result<std::optional<Tree::Exposure>> Tree::rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how) {
  std::optional<Exposure> exposure;
  const Status renamed = in_unlinking_txn([&](WriteTxn& txn, Unlinking& unlinking) -> Status {
    RK_TRY(check_name(new_name));
    RK_TRY_ASSIGN(const Entry source, require(txn, parent, name));
    RK_TRY_ASSIGN(const InodeRecord target_directory, get(txn, new_parent));
    RK_TRY(require_directory(target_directory));
    RK_TRY_ASSIGN(const std::optional<Entry> target, find(txn, new_parent, new_name));
    if (target && how == RenameMode::no_replace) return fail(Errc::exists);
    if (!target && how == RenameMode::exchange) return fail(Errc::not_found);
    if (target && target->ino == source.ino) return {};
    if (source.kind == NodeKind::directory) {
      RK_TRY_ASSIGN(const bool into_itself, is_below(new_parent, source.ino));
      if (into_itself) return fail(Errc::invalid, "a directory cannot be moved into itself");
    }
    // Checked before the policy error: that makes mv copy the image, which must not start if the target is protected.
    if (target && how == RenameMode::replace && target->kind == NodeKind::image && source.kind != NodeKind::directory)
      RK_TRY(check_protected(txn, *target, "the image to replace is protected"));
    const Status movable = check_move(txn, source, parent, new_parent);
    if (how == RenameMode::exchange) {
      const Status back = check_move(txn, *target, new_parent, parent);
      if (!back && back.error().code == Errc::not_permitted) return back;
    }
    RK_TRY(movable);
    unlinking.moved = unlinking.moved || parent != new_parent;

    if (how == RenameMode::exchange) {
      if (target->kind == NodeKind::directory) {
        RK_TRY_ASSIGN(const bool into_itself, is_below(parent, target->ino));
        if (into_itself) return fail(Errc::invalid, "a directory cannot be moved into itself");
      }
      RK_TRY(check_move(txn, *target, new_parent, parent));
      RK_TRY(move(txn, source, parent, new_parent, new_name));
      return move(txn, *target, new_parent, parent, name);
    }
    if (target) {
      RK_TRY_ASSIGN(exposure, exposure_by(txn, source, *target, new_parent));
      if (exposure) return fail(Errc::busy, "the image is plain, and the one to replace is encrypted");
      RK_TRY(replace(txn, new_parent, *target, source, unlinking));
    }
    erase_entry(txn, parent, name);
    return move(txn, source, parent, new_parent, new_name);
  });
  if (!renamed && !exposure) return fail(renamed.error());
  return exposure;
}

// --- extended attributes ---------------------------------------------------------------------------------------

std::string Tree::xattr_key(Ino ino, std::string_view name) const {
  return make_key(Table::attribute, ino.value(), name_hash_.tag(as_bytes("xattr"), as_bytes(name)));
}

Result<std::string> Tree::getxattr(Ino ino, std::string_view name) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_->get(xattr_key(ino, name)));
  if (!bytes) return fail(Errc::no_attribute);
  RK_TRY_ASSIGN(AttributeRecord attribute, AttributeRecord::decode(*bytes));
  return std::move(attribute.value);
}

Result<std::vector<std::string>> Tree::listxattr(Ino ino) const {
  std::vector<std::string> names;
  Status decoded;
  RK_TRY(catalog_->scan(make_key(Table::attribute, ino.value()), "", [&](std::string_view, std::string_view value) {
    auto attribute = AttributeRecord::decode(value);
    if (attribute) names.push_back(std::move(attribute->name));
    else decoded = fail(attribute.error());
    return decoded.has_value();
  }));
  RK_TRY(decoded);
  return names;
}

Status Tree::setxattr(Ino ino, std::string_view name, std::string_view value, XattrMode how) {
  WriteTxn txn(*catalog_);
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, ino));
  const std::string key = xattr_key(ino, name);
  RK_TRY_ASSIGN(const auto there, txn.get(key));
  if (there && how == XattrMode::create) return fail(Errc::exists);
  if (!there && how == XattrMode::replace) return fail(Errc::no_attribute);
  txn.put(key, AttributeRecord{std::string(name), std::string(value)}.encode());
  inode.changed = now();
  put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

Status Tree::removexattr(Ino ino, std::string_view name) {
  WriteTxn txn(*catalog_);
  RK_TRY_ASSIGN(InodeRecord inode, get(txn, ino));
  const std::string key = xattr_key(ino, name);
  RK_TRY_ASSIGN(const auto there, txn.get(key));
  if (!there) return fail(Errc::no_attribute);
  txn.erase(key);
  inode.changed = now();
  put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

Status Tree::inherit_xattr(WriteTxn& txn, Ino from, Ino to, std::string_view name) const {
  RK_TRY_ASSIGN(const auto theirs, txn.get(xattr_key(from, name)));
  const std::string key = xattr_key(to, name);
  RK_TRY_ASSIGN(const auto own, txn.get(key));
  if (theirs && !own) txn.put(key, *theirs);
  return {};
}

Status Tree::erase_xattrs(WriteTxn& txn, Ino ino) const {
  std::vector<std::string> keys;
  RK_TRY(catalog_->scan(make_key(Table::attribute, ino.value()), "", [&](std::string_view key, std::string_view) {
    keys.emplace_back(key);
    return true;
  }));
  for (const std::string& key : keys) txn.erase(key);
  return {};
}

}  // namespace rekeyfs::names
