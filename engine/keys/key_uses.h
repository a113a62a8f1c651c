// KeyUses: which images need a master key, why, and until when. Thread-safe.
#pragma once

#include <functional>
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
  // By path.
  Result<std::vector<Use>> of(const kms::KeyId& key) const;

  // Calls `visit` once for each image that needs the key, deleted ones that are still open included: `is_top` if its own
  // layer is encrypted with the key, else one below it is. Reads each layer's record, and of those above the key's layers
  // who reads from them. Skips what cannot be read, and returns the first such error at the end.
  using Visit = std::function<void(Ino image, bool is_top)>;
  Status visit(const kms::KeyId& key, const Visit& visit) const;

  // Until when an image needs the key of a layer below its own.
  std::string until_replicated(Ino image) const;

  // An image's layer and those it reads from, youngest first. Errc::stale if the image is gone.
  struct LayerAt {
    LayerId id;
    blocks::LayerRecord record;
  };
  Result<std::vector<LayerAt>> chain_of(Ino image) const;

 private:
  struct Found {
    LayerId layer;
    Ino owner;
  };
  Status find_layers(const kms::KeyId& key, std::vector<Found>& found) const;
  // The layers that read from `layer` directly.
  Status find_readers(LayerId layer, std::vector<Found>& found) const;
  Use use_of(Ino image, bool is_top) const;
  Result<std::vector<LayerAt>> chain_from(LayerId top) const;

  store::Store& store_;
  const names::Tree& tree_;
  const replication::Filler& filler_;
};

}  // namespace rekeyfs::keys
