// Pending: the replications that the catalog has on record, found when a store is opened. Thread-safe.
#pragma once

#include "engine/namespace/tree.h"
#include "engine/store/store.h"

namespace rekeyfs::replication {

struct Pending {
  Ino ino;  // none: a layer that was being filled when its image went, and that clones still read from
  LayerId layer;
  uid_t asker = 0;
  std::string error;  // why it did not go on
};
// A record that does not make sense is logged, and keeps none of the others from being found.
Result<std::vector<Pending>> list_pending(store::Store& store, const names::Tree& tree);

// The layer that a replication of the image with this top layer fills. An image whose content others have cloned, and that
// was written to since, goes on in a layer above that one.
Result<LayerId> layer_to_fill(const blocks::LayerRegistry& layers, LayerId top);

// Whether a layer reads from this one that does not transform what it reads, and so will need it for long.
Result<bool> has_clones(const blocks::LayerRegistry& layers, LayerId layer);

}  // namespace rekeyfs::replication
