// KeyUses: which images need a master key, why, and until when. Thread-safe.
#pragma once

#include <functional>
#include <vector>

#include "engine/replication/filler.h"
#include "engine/types/key_facts.h"

namespace rekeyfs::keys {

class KeyUses {
 public:
  // All arguments must outlive it.
  KeyUses(store::Store& store, const names::Tree& tree, const replication::Filler& filler)
      : store_(store), tree_(tree), filler_(filler) {}

  // Ordered by path.
  Result<std::vector<KeyUse>> of(const kms::KeyId& key) const;

  // Calls `visit` once for each image that needs the key, including deleted images that are still open. `is_top`: the
  // image's own top layer is encrypted with the key, otherwise a layer below it is. Reads the record of each layer, and
  // the readers of the layers above the key's layers. Skips what cannot be read, and returns the first such error at
  // the end. Asks `go_on` before each record; false, without having visited all, if that ended it.
  using Visit = std::function<void(Ino image, bool is_top)>;
  using GoOn = std::function<bool()>;
  Result<bool> visit(const kms::KeyId& key, const Visit& visit, const GoOn& go_on) const;

  // Until when an image needs the key of a layer below its top.
  std::string until_replicated(Ino image) const;

 private:
  struct Found {
    LayerId layer;
    Ino owner;
  };
  Status find_layers(const kms::KeyId& key, std::vector<Found>& found, const GoOn& go_on) const;
  // The layers whose base is `layer`.
  Status find_readers(LayerId layer, std::vector<Found>& found) const;
  KeyUse use_of(Ino image, bool is_top) const;

  store::Store& store_;
  const names::Tree& tree_;
  const replication::Filler& filler_;
};

}  // namespace rekeyfs::keys
