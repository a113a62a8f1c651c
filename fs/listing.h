// Listing: fills one reply to readdir or readdirplus; "." and ".." come first.
#pragma once

#include <vector>

#include "engine/engine.h"
#include "fs/context.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

class Listing {
 public:
  enum class Detail { names, attributes };
  Listing(fuse_req_t req, std::size_t size, Detail detail);

  // Fills the reply with the entries after `offset`, which is 0 or comes from an earlier reply.
  Status fill(Context& context, Ino directory, off_t offset);
  ByteView bytes() const { return {buffer_.data(), used_}; }

 private:
  bool add_dot(const char* name, Ino ino, off_t next);
  bool add(Context& context, const DirectoryEntry& entry);
  bool put(const char* name, const fuse_entry_param& entry, off_t next);

  const fuse_req_t req_;
  const Detail detail_;
  std::vector<std::byte> buffer_;
  std::size_t used_ = 0;
};

}  // namespace rekeyfs::fs
