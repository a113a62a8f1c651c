// Placement: which images and directories may come to be in a directory: the rules of policies, of
// user.rekeyfs.encrypted_only and of trash directories. Tree applies them when a node moves or gets another name; other
// parts ask it before they make something plain. Thread-safe. Within a transaction, to be used before its first change.
//
// A trash directory is one that the freedesktop.org specification names: `.Trash-UID`, or `UID` in `.Trash`, that
// belongs to the user UID. All directories below count as the trash, too. There an image keeps its key, whatever the
// policy, so that deleting and restoring it in a file manager leaves no copy.
#pragma once

#include <optional>

#include "engine/catalog/catalog.h"
#include "engine/namespace/inode_record.h"

namespace rekeyfs::names {

class Tree;

class Placement {
 public:
  Placement(const Tree& tree, const catalog::Catalog& catalog) : tree_(tree), catalog_(catalog) {}

  // Whether the directory, or one above it, has the attribute encrypted_only.
  Result<bool> is_encrypted_only(Ino directory) const;
  // Errc::not_permitted if nothing plain may come to be in the directory.
  Status may_hold_plain(Ino directory) const;

  // Whether the node may be moved from one directory to another, or the image be linked. Errc::cross_policy if it has
  // to be copied instead; Errc::not_permitted if a copy would be refused as well, or the image is protected.
  Status may_move_image(const InodeRecord& image, Ino from, Ino to) const;
  Status may_move_directory(Ino directory, Ino to) const;

  // The key of the image's content; nullopt: plain.
  Result<std::optional<kms::KeyId>> key_of(const InodeRecord& image) const;

 private:
  // Calls `is` for the directory and those above it until it is true. False if none is, or the directory was removed.
  template <typename Is>
  Result<bool> any_upwards(Ino directory, Is is) const;
  Result<bool> is_in_trash(Ino directory) const;
  bool is_trash(const InodeRecord& directory) const;
  Status may_come_in_plain(Ino from, Ino to, const Policy& policy) const;
  Result<bool> may_keep_its_key(const InodeRecord& image, const std::optional<kms::KeyId>& key, Ino from, Ino to) const;

  const Tree& tree_;
  const catalog::Catalog& catalog_;
};

}  // namespace rekeyfs::names
