// NodeInfo: all facts about one image, directory or link, for `info`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/types/attributes.h"
#include "engine/types/xattr.h"

namespace rekeyfs {

// One layer of an image, for `info`; youngest first.
struct LayerInfo {
  LayerId id;
  std::string key;              // alias; empty for plain
  std::string key_id;           // hex; empty for plain
  std::uint32_t key_version = 0;
  std::string suite;            // "aes-256-gcm", "chacha20-poly1305", "plain"
  std::uint32_t block_size = 0; // bytes
  std::uint64_t stored = 0;     // bytes of blocks stored in this layer
};

// A key that is needed to read the image.
struct KeyNeed {
  std::string key;    // alias
  std::string until;  // for display: "until it is deleted"
};

// The origin of a replica.
struct Origin {
  std::string source;      // id of the source image; the image's own id if its directory got a new key
  std::string key_before;  // alias; empty for plain
  Timestamp replicated = 0;
  Timestamp completed = 0;  // when it became independent of its source; 0: not yet
};

struct NodeInfo {
  Attributes attributes;
  std::string path;
  std::vector<Xattr> ours;    // all user.rekeyfs.* attributes that have a value
  std::vector<Xattr> others;  // attributes that listxattr returns
  std::optional<Origin> origin;
  std::vector<LayerInfo> layers;
  std::vector<KeyNeed> keys_needed;
};

}  // namespace rekeyfs
