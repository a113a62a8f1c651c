// KeyUses: which images need a master key, why, and until when. Thread-safe.
#pragma once

#include <vector>

#include "engine/replication/filler.h"
#include "engine/types/key_facts.h"

namespace rekeyfs::keys {

class KeyUses {
 public:
  // All outlive it.
  KeyUses(store::Store& store, const names::Tree& tree, const replication::Filler& filler)
      : store_(store), tree_(tree), filler_(filler) {}

  struct Use {
    Ino image;
    KeyUse facts;
  };
  // Walks all nodes of the store. By path.
  Result<std::vector<Use>> of(const kms::KeyId& key) const;

  // Until when an image needs the key of a layer below its own.
  std::string until_replicated(Ino image) const;

  // An image's layer and those it reads from, youngest first. Errc::stale if the image is gone.
  struct LayerAt {
    LayerId id;
    blocks::LayerRecord record;
  };
  Result<std::vector<LayerAt>> chain_of(Ino image) const;

 private:
  Result<std::optional<Use>> use_by(Ino image, const kms::KeyId& key) const;
  Result<std::vector<LayerAt>> chain_from(LayerId top) const;

  store::Store& store_;
  const names::Tree& tree_;
  const replication::Filler& filler_;
};

}  // namespace rekeyfs::keys
