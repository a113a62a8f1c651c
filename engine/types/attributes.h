// Attributes: the result of getattr, and the changes of setattr.
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
  mode_t permissions = 0;  // mask 07777
  std::uint32_t links = 1;
  uid_t uid = 0;
  gid_t gid = 0;
  std::uint64_t size = 0;  // bytes of an image's content or of a symlink's target
  Timestamp accessed = 0, modified = 0, changed = 0;
};

// The changes of setattr; an absent member is unchanged.
struct AttributeChange {
  std::optional<mode_t> permissions;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<Timestamp> accessed, modified, changed;
};

}  // namespace rekeyfs
