// Names: the name space of an open store: lookup, attributes, directories, links, extended attributes.
//
// Modelled on the kernel's VFS: nodes are numbers (Ino). `name` is one component; the caller handles "." and "..". A
// number stays valid until its node is unlinked and closed. After that, calls fail with Errc::stale, except that the
// node's attributes can be read and changed until forget(). Thread-safe; no function throws.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/types/attributes.h"
#include "engine/types/caller.h"
#include "engine/types/directory_entry.h"
#include "engine/types/open_file.h"
#include "engine/types/rename_mode.h"
#include "engine/types/xattr.h"

namespace rekeyfs {

class Names {
 public:
  virtual ~Names() = default;

  virtual Result<Attributes> lookup(Ino parent, std::string_view name) = 0;
  virtual Result<Ino> resolve(std::string_view path) = 0;  // from the root, separated by '/'; does not follow symlinks
  virtual std::string path_of(Ino ino) = 0;  // for messages; "?" for unknown parts
  virtual Result<Ino> parent_of(Ino directory) = 0;

  virtual Result<Attributes> getattr(Ino ino) = 0;
  // `file`, if not null, is the handle used (ftruncate).
  virtual Result<Attributes> setattr(Ino ino, const AttributeChange& change, const Caller& caller, OpenFile* file = nullptr) = 0;

  // Whether the node has no name any more, and its attributes are kept for callers that still know its number.
  virtual bool awaits_forget(Ino ino) = 0;
  virtual void forget(Ino ino) = 0;  // no caller knows the number of this removed node any more

  virtual Result<Attributes> make_directory(Ino parent, std::string_view name, mode_t mode, const Caller& caller) = 0;
  virtual Result<Attributes> make_symlink(Ino parent, std::string_view name, std::string_view target, const Caller& caller) = 0;
  virtual Result<std::string> read_symlink(Ino ino) = 0;
  virtual Result<Attributes> link(Ino ino, Ino parent, std::string_view name) = 0;
  virtual Status unlink(Ino parent, std::string_view name) = 0;
  virtual Status remove_directory(Ino parent, std::string_view name) = 0;
  // A plain image that replaces an encrypted one is encrypted first. Errc::access_denied: without a grant for that key.
  virtual Status rename(Ino parent, std::string_view name, Ino new_parent, std::string_view new_name, RenameMode how,
                        const Caller& caller) = 0;
  // Up to `most` entries after `cookie` (0: from the start), without "." and "..".
  virtual Result<std::vector<DirectoryEntry>> read_directory(Ino ino, std::uint64_t cookie, std::size_t most) = 0;
  // Makes all changes of names so far durable.
  virtual Status sync_directory(Ino ino) = 0;

  // Extended attributes, by full name ("user.rekeyfs.key").
  virtual Result<std::string> getxattr(Ino ino, std::string_view name) = 0;
  // A size that the value will not exceed for some time: callers ask for the size first, and some values grow.
  virtual Result<std::size_t> xattr_size(Ino ino, std::string_view name) = 0;
  virtual Result<std::vector<std::string>> listxattr(Ino ino) = 0;  // without user.rekeyfs.*
  virtual Status setxattr(Ino ino, std::string_view name, std::string_view value, XattrMode how, const Caller& caller) = 0;
  virtual Status removexattr(Ino ino, std::string_view name, const Caller& caller) = 0;
};

}  // namespace rekeyfs
