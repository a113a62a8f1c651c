// NodeInfo: everything about one image, directory or link, for `info`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/types/attributes.h"
#include "engine/types/xattr.h"

namespace rekeyfs {

// What a layer is made of, for `info`, youngest first.
struct LayerInfo {
  LayerId id;
  std::string key;              // alias; empty for plain
  std::string key_id;           // hex; empty for plain
  std::uint32_t key_version = 0;
  std::string suite;            // "aes-256-gcm", "chacha20-poly1305", "plain"
  std::uint32_t block_size = 0; // bytes
  std::uint64_t stored = 0;     // bytes of blocks it holds itself
};

// A key that an image cannot be read without.
struct KeyNeed {
  std::string key;    // alias
  std::string until;  // words: "until it is deleted"
};

// What an image was copied from.
struct Origin {
  std::string source;      // the id of an image; its own if its directory was given a new key
  std::string key_before;  // alias; empty for plain
  Timestamp replicated = 0;
  Timestamp completed = 0;  // since when it needs its source no more; 0: it still does
};

struct NodeInfo {
  Attributes attributes;
  std::string path;
  std::vector<Xattr> ours;    // every user.rekeyfs.* that has a value
  std::vector<Xattr> others;  // listed ones
  std::optional<Origin> origin;
  std::vector<LayerInfo> layers;
  std::vector<KeyNeed> keys_needed;
};

}  // namespace rekeyfs
