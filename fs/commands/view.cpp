#include "fs/commands/view.h"

#include <algorithm>

namespace rekeyfs::fs {
namespace {

Status check_component(std::string_view name) {
  if (name == "." || name == ".." || name.find('\0') != std::string_view::npos)
    return fail(Errc::invalid, "\"path\" must be names separated by '/', without \".\" and \"..\"");
  return {};
}

}  // namespace

View::View(Engine& engine, const Requester& requester)
    : engine_(engine), requester_(requester), top_(engine.names().path_of(requester.through)) {}

Result<Attributes> View::reach(std::string_view path) const {
  RK_TRY_ASSIGN(Attributes node, engine_.names().getattr(requester_.through));
  while (!path.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    const std::string_view name = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (name.empty()) continue;
    RK_TRY(check_component(name));
    if (node.kind != NodeKind::directory) return fail(Errc::not_directory);
    if (!allows(node, kSearch)) return fail(Errc::access_denied, "you may not search " + path_of(node.ino));
    RK_TRY_ASSIGN(node, engine_.names().lookup(node.ino, name));
  }
  return node;
}

Status View::may_read(const Attributes& node) const {
  if (allows(node, kRead)) return {};
  return fail(Errc::access_denied, "you may not read " + path_of(node.ino));
}

bool View::lists(Ino node) {
  if (requester_.caller.is_operator || node == requester_.through) return true;
  const auto parent = engine_.names().parent_of(node);
  return parent && lists_directory(*parent);
}

bool View::lists_directory(Ino directory) {
  const auto known = listed_.find(directory);
  if (known != listed_.end()) return known->second;
  const bool listed = looks_through(directory);
  listed_.emplace(directory, listed);
  return listed;
}

// The root's parent is the root: whoever comes there has not come through the directory.
bool View::looks_through(Ino directory) {
  const auto node = engine_.names().getattr(directory);
  if (!node || !allows(*node, kRead | kSearch)) return false;
  if (directory == requester_.through) return true;
  if (directory == kRootIno) return false;
  const auto parent = engine_.names().parent_of(directory);
  return parent && lists_directory(*parent);
}

bool View::allows(const Attributes& node, mode_t wanted) const {
  const Caller& caller = requester_.caller;
  if (caller.is_operator) return true;
  mode_t bits = node.permissions;
  const auto is_his = [&](gid_t group) { return group == node.gid; };
  if (caller.uid == node.uid) bits >>= 6;
  else if (is_his(caller.gid) || std::any_of(requester_.groups.begin(), requester_.groups.end(), is_his)) bits >>= 3;
  return (bits & wanted) == wanted;
}

std::string View::path_of(Ino node) const { return path_below(engine_.names().path_of(node)).value_or("?"); }

std::optional<std::string> path_from(std::string_view directory, std::string_view path) {
  if (directory == "/") return std::string(path);
  if (path == directory) return "/";
  if (path.size() <= directory.size() || !path.starts_with(directory) || path[directory.size()] != '/') return std::nullopt;
  return std::string(path.substr(directory.size()));
}

}  // namespace rekeyfs::fs
