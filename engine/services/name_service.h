// NameService: implements Names on top of Tree, with the rules that content adds: sizes, sharing, user.rekeyfs.*
// attributes.
#pragma once

#include "engine/contract/names.h"
#include "engine/images/refusals.h"
#include "engine/images/rekeyfs_xattrs.h"
#include "engine/images/replacements.h"
#include "engine/services/file_service.h"
#include "engine/types/attributes.h"
#include "engine/types/caller.h"
#include "engine/types/directory_entry.h"
#include "engine/types/open_file.h"
#include "engine/types/rename_mode.h"
#include "engine/types/xattr.h"

namespace rekeyfs::services {

class NameService final : public Names {
 public:
  // All outlive it.
  NameService(store::Store& store, names::Tree& tree, const images::ImageStatus& status, images::RekeyfsXattrs& xattrs,
              images::Replacements& replacements, images::Refusals& refusals, quota::QuotaBook& quotas, FileService& files)
      : store_(store), tree_(tree), status_(status), xattrs_(xattrs), replacements_(replacements), refusals_(refusals), quotas_(quotas), files_(files) {}

  Result<Attributes> lookup(Ino parent, std::string_view name) override;
  Result<Ino> resolve(std::string_view path) override;
  std::string path_of(Ino ino) override { return tree_.path_of(ino); }
  Result<Ino> parent_of(Ino directory) override;
  Result<Attributes> getattr(Ino ino) override;
  Result<Attributes> setattr(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file) override;
  bool awaits_forget(Ino ino) override { return tree_.removed().find(ino).has_value(); }
  void forget(Ino ino) override { tree_.removed().forget(ino); }
  Result<Attributes> make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) override;
  Result<Attributes> make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) override;
  Result<std::string> read_symlink(Ino ino) override;
  Result<Attributes> link(Ino ino, Ino parent, std::string_view name) override;
  Status unlink(Ino parent, std::string_view name) override;
  Status remove_directory(Ino parent, std::string_view name) override;
  Status rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how,
                const Caller& caller) override;
  Result<std::vector<DirectoryEntry>> read_directory(Ino ino, std::uint64_t cookie, std::size_t most) override {
    return tree_.list(ino, cookie, most);
  }
  Status sync_directory(Ino) override { return store_.checkpointer().sync_journal({}); }
  Result<std::string> getxattr(Ino ino, std::string_view name) override;
  Result<std::size_t> xattr_size(Ino ino, std::string_view name) override;
  Result<std::vector<std::string>> listxattr(Ino ino) override;
  Status setxattr(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller) override;
  Status removexattr(Ino ino, std::string_view name, const Caller& caller) override;

 private:
  Status recorded(Ino ino, Status outcome, const Caller& caller);
  Status change(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file);
  Status apply(const AttributeChange& change, bool settled, names::InodeRecord& inode);
  Result<quota::Charge> charge_move(Ino parent, std::string_view name, Ino new_parent);
  Status change_permissions(mode_t wanted, bool settled, names::InodeRecord& inode);

  store::Store& store_;
  names::Tree& tree_;
  const images::ImageStatus& status_;
  images::RekeyfsXattrs& xattrs_;
  images::Replacements& replacements_;
  images::Refusals& refusals_;
  quota::QuotaBook& quotas_;
  FileService& files_;
};

}  // namespace rekeyfs::services
