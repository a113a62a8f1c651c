#include "engine/namespace/removed_nodes.h"

namespace rekeyfs::names {

void RemovedNodes::add(const Node& node) {
  Lock lock(mutex_);
  nodes_.insert_or_assign(node.attributes.ino, node);
  count_.store(nodes_.size());
}

std::optional<RemovedNodes::Node> RemovedNodes::find(Ino ino) const {
  if (is_empty()) return std::nullopt;
  Lock lock(mutex_);
  const auto found = nodes_.find(ino);
  return found == nodes_.end() ? std::nullopt : std::optional(found->second);
}

bool RemovedNodes::change(Ino ino, const AttributeChange& change) {
  if (is_empty()) return false;
  Lock lock(mutex_);
  const auto found = nodes_.find(ino);
  if (found == nodes_.end()) return false;
  Attributes& attributes = found->second.attributes;
  attributes.permissions = change.permissions.value_or(attributes.permissions) & 07777;
  attributes.uid = change.uid.value_or(attributes.uid);
  attributes.gid = change.gid.value_or(attributes.gid);
  attributes.accessed = change.accessed.value_or(attributes.accessed);
  attributes.modified = change.modified.value_or(attributes.modified);
  attributes.changed = change.changed.value_or(now());
  return true;
}

void RemovedNodes::forget(Ino ino) {
  if (is_empty()) return;
  Lock lock(mutex_);
  nodes_.erase(ino);
  count_.store(nodes_.size());
}

}  // namespace rekeyfs::names
