// EntryRecord: one name in a directory (Table::entry, key: directory and hash of the name), and its encoding.
#pragma once

#include "engine/base/bytes.h"
#include "engine/types/attributes.h"

namespace rekeyfs::names {

inline constexpr std::size_t kMaxName = 255;  // maximum bytes of a name

struct EntryRecord {
  std::string name;
  Ino ino;
  NodeKind kind = NodeKind::image;

  std::string encode() const {
    return Writer().put(ino.value()).put(static_cast<std::uint8_t>(kind)).put_string(name).take();
  }
  static Result<EntryRecord> decode(std::string_view bytes) {
    Reader in(bytes);
    EntryRecord entry;
    entry.ino = Ino{in.get<std::uint64_t>()};
    entry.kind = static_cast<NodeKind>(in.get<std::uint8_t>());
    entry.name = in.get_string();
    const bool is_named = !entry.name.empty() && entry.name.size() <= kMaxName;
    if (!in.finished() || !is_named || entry.kind < NodeKind::directory || entry.kind > NodeKind::symlink)
      return fail(Errc::corrupt, "a directory entry is malformed");
    return entry;
  }
};

}  // namespace rekeyfs::names
