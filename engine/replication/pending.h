// Pending: the replications recorded in the catalog, found when a store is opened. Thread-safe.
#pragma once

#include "engine/namespace/tree.h"
#include "engine/store/store.h"

namespace rekeyfs::replication {

struct Pending {
  Ino ino;  // none: the image was deleted while the layer was being filled, and clones still read from the layer
  LayerId layer;
  uid_t asker = 0;
  std::string error;  // why it was suspended
};
// An invalid record is logged and does not prevent finding the others.
Result<std::vector<Pending>> list_pending(store::Store& store, const names::Tree& tree);

// The layer that is being filled for the image with this top layer. It is below the top if the image was cloned and
// then written to.
Result<LayerId> layer_to_fill(const blocks::LayerRegistry& layers, LayerId top);

// Whether some layer over this one is a clone of it, and so needs it for long.
Result<bool> has_clones(const blocks::LayerRegistry& layers, LayerId layer);

}  // namespace rekeyfs::replication
