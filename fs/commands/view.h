// View: what the sender of a command could find out through the file system, from the directory that the command came
// through. Commands answer no more than that.
//
// The kernel has checked how the sender came to that directory; from there on the permission bits decide, as for a path
// walk: the store has no access control lists, and an operator sees everything. Not thread-safe: one for each request.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "fs/control.h"

namespace rekeyfs::fs {

// The part of `path` from `directory` on, "/" for the directory itself; both are paths in the store. nullopt if the path
// is neither the directory's nor below it.
std::optional<std::string> path_from(std::string_view directory, std::string_view path);

class View {
 public:
  // Both must outlive it.
  View(Engine& engine, const Requester& requester);

  // The node at `path`, names separated by '/', from the directory on; an empty path is the directory itself. Does not
  // follow symbolic links. Errc::access_denied for everything below a directory that the sender may not search, whether
  // it exists or not; Errc::not_found; Errc::invalid for "." and "..".
  Result<Attributes> reach(std::string_view path) const;
  // Whether the sender may read the node's content and attributes. Errc::access_denied.
  Status may_read(const Attributes& node) const;
  // Whether the sender can find the node by listing directories.
  bool lists(Ino node);

  // Paths as the sender knows them, from the directory on: "/image".
  std::string path_of(Ino node) const;
  // The same for a path in the store; nullopt if it is not below the directory.
  std::optional<std::string> path_below(std::string_view path) const { return path_from(top_, path); }

 private:
  enum : mode_t { kRead = 4, kSearch = 1 };
  bool allows(const Attributes& node, mode_t wanted) const;
  bool lists_directory(Ino directory);
  bool looks_through(Ino directory);

  Engine& engine_;
  const Requester& requester_;
  const std::string top_;  // path of the directory in the store
  std::unordered_map<Ino, bool> listed_;
};

}  // namespace rekeyfs::fs
