// Tree: the name space: directories, names, links and attributes, as records of the catalog.
//
// It does not handle content; the ImageReaper deletes images. Thread-safe: every change is one catalog transaction.
#pragma once

#include <atomic>
#include <memory>
#include <type_traits>

#include "engine/catalog/catalog.h"
#include "engine/namespace/entry_record.h"
#include "engine/namespace/inode_record.h"
#include "engine/namespace/placement.h"
#include "engine/namespace/removed_nodes.h"
#include "engine/types/caller.h"
#include "engine/types/directory_entry.h"
#include "engine/types/rename_mode.h"
#include "engine/types/xattr.h"

namespace rekeyfs::names {

inline constexpr std::size_t kMaxTarget = 4095;  // maximum bytes of a symbolic link's target
inline constexpr std::uint32_t kMaxLinks = 65000;

// Deletes an image that loses its last name. Called in the transaction.
class ImageReaper {
 public:
  virtual ~ImageReaper() = default;
  // Held from before the transaction until after it, so that an image is neither opened nor closed meanwhile.
  virtual Mutex& opening() = 0;
  virtual Status image_unlinked(catalog::WriteTxn& txn, Ino ino, InodeRecord& inode) = 0;
  virtual void unlink_committed(bool committed) = 0;
};

class Tree {
 public:
  static Result<Tree> create(catalog::Catalog& catalog, const crypto::Key& root, const Uuid& store);
  // The name space records of a new store: the root directory, owned by `owner`.
  static std::vector<std::pair<std::string, std::string>> initial_records(const Caller& owner);
  void set_reaper(ImageReaper* reaper) { reaper_ = reaper; }

  Result<InodeRecord> get(Ino ino) const;  // Errc::stale if it was deleted
  // Calls `look` with the record; `look` reads the layer that the record names. If it fails because the content was
  // replaced in between, it is called again with the current record.
  template <typename Look>
  std::invoke_result_t<Look&, const InodeRecord&> look_at(Ino ino, Look look) const {
    for (;;) {
      RK_TRY_ASSIGN(const InodeRecord inode, get(ino));
      auto found = look(inode);
      if (found) return found;
      const auto now = get(ino);
      if (!now || now->image.layer == inode.image.layer) return found;
    }
  }
  static Result<InodeRecord> get(const catalog::WriteTxn& txn, Ino ino);
  static void put(catalog::WriteTxn& txn, Ino ino, const InodeRecord& inode);
  Result<Ino> lookup(Ino parent, std::string_view name) const;
  Result<std::vector<DirectoryEntry>> list(Ino directory, std::uint64_t cookie, std::size_t most) const;
  std::string entry_key(Ino parent, std::string_view name) const;
  std::string xattr_key(Ino ino, std::string_view name) const;
  // Nodes without a name. While a node has a record, the record is authoritative.
  RemovedNodes& removed() const { return *removed_; }
  std::string path_of(Ino ino) const;  // for messages; "?" if a record is missing
  Placement placement() const { return Placement(*this, *catalog_); }
  // How often a node came to be in another directory since the store was opened. Never decreases.
  std::uint64_t moves() const { return moves_->load(); }

  // Adds a node to a directory in the caller's transaction; fills parent, name, links, times.
  Result<Ino> add(catalog::WriteTxn& txn, Ino parent, std::string_view name, InodeRecord& inode) const;
  Result<Ino> make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller);
  Result<Ino> make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller);
  Status link(Ino ino, Ino parent, std::string_view name);
  // With `only`: Errc::not_found if the name belongs to another node.
  Status unlink(Ino parent, std::string_view name, Ino only = {});
  Status remove_directory(Ino parent, std::string_view name);
  // A plain image that a rename would put in the place of an encrypted one, and the key that its content needs first.
  struct Exposure {
    Ino image;
    kms::KeyId key{};
  };
  // Changes nothing if it returns an Exposure.
  Result<std::optional<Exposure>> rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how);

  // Extended attributes set by users, by full name.
  Result<std::string> getxattr(Ino ino, std::string_view name) const;
  Result<std::vector<std::string>> listxattr(Ino ino) const;
  Status setxattr(Ino ino, std::string_view name, std::string_view value, XattrMode how);
  Status removexattr(Ino ino, std::string_view name);
  // Copies the attribute from `from` to `to` unless `to` has one of that name.
  Status inherit_xattr(catalog::WriteTxn& txn, Ino from, Ino to, std::string_view name) const;
  Status erase_xattrs(catalog::WriteTxn& txn, Ino ino) const;

 private:
  using Entry = EntryRecord;
  Tree(catalog::Catalog& catalog, crypto::Mac name_hash)
      : catalog_(&catalog), name_hash_(std::move(name_hash)), removed_(std::make_unique<RemovedNodes>()),
        moves_(std::make_unique<std::atomic<std::uint64_t>>(0)) {}

  Result<std::optional<Entry>> find(const catalog::WriteTxn& txn, Ino parent, std::string_view name) const;
  Result<Entry> require(const catalog::WriteTxn& txn, Ino parent, std::string_view name) const;
  void put_entry(catalog::WriteTxn& txn, Ino parent, const Entry& entry) const;
  void erase_entry(catalog::WriteTxn& txn, Ino parent, std::string_view name) const;
  Status touch_directory(catalog::WriteTxn& txn, Ino directory, int links_delta) const;
  Result<bool> is_empty(Ino directory) const;
  Result<bool> is_below(Ino node, Ino ancestor) const;
  // The record of a node with several names contains one of them. When that name is removed, another one has to be
  // found among all names. The search runs without locks between two attempts of the transaction; the second attempt
  // verifies the result. Only if names keep moving meanwhile is the search repeated in a transaction.
  struct Named {
    Ino parent;
    Entry entry;
  };
  struct Unlinking {
    std::optional<Named> lost;   // this attempt needs another name of this node
    std::optional<Named> found;  // search result for the next attempt
    bool searched = false;
    bool moved = false;  // a node is in another directory now
  };
  Status drop_name(catalog::WriteTxn& txn, Ino parent, const Entry& entry, Unlinking& unlinking);
  Status rename_record(const catalog::WriteTxn& txn, const Named& gone, InodeRecord& inode, Unlinking& unlinking) const;
  Result<std::optional<Named>> other_name(const Named& gone) const;
  Status move(catalog::WriteTxn& txn, Entry entry, Ino from, Ino to, std::string_view new_name) const;
  Status check_move(const catalog::WriteTxn& txn, const Entry& entry, Ino from, Ino to) const;
  Result<std::optional<Exposure>> exposure_by(const catalog::WriteTxn& txn, const Entry& source, const Entry& target, Ino directory) const;
  Status replace(catalog::WriteTxn& txn, Ino directory, const Entry& target, const Entry& source, Unlinking& unlinking);
  Status check_protected(const catalog::WriteTxn& txn, const Entry& entry, std::string_view why) const;
  using UnlinkingChange = std::function<Status(catalog::WriteTxn&, Unlinking&)>;
  Status in_unlinking_txn(const UnlinkingChange& change);
  Status try_unlinking(const UnlinkingChange& change, Unlinking& unlinking);

  catalog::Catalog* catalog_;
  crypto::Mac name_hash_;
  std::unique_ptr<RemovedNodes> removed_;
  std::unique_ptr<std::atomic<std::uint64_t>> moves_;
  ImageReaper* reaper_ = nullptr;
};

}  // namespace rekeyfs::names
