// Attributes: what getattr answers of a node, and what setattr changes.
#pragma once

#include <cstdint>
#include <optional>

#include <sys/types.h>

#include "engine/base/ids.h"

namespace rekeyfs {

enum class NodeKind : std::uint8_t { directory = 1, image = 2, symlink = 3 };  // numbers on disk

struct Attributes {
  Ino ino;
  NodeKind kind = NodeKind::image;
  mode_t permissions = 0;  // 07777
  std::uint32_t links = 1;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t size = 0;  // bytes; an image's content, a symlink's target
  Timestamp accessed = 0, modified = 0, changed = 0;
};

// What setattr changes; an absent member stays.
struct AttributeChange {
  std::optional<mode_t> permissions;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<Timestamp> accessed, modified, changed;
};

}  // namespace rekeyfs
