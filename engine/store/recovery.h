// Recovery: plays the journal's history back into the catalog and the block tables.
#pragma once

#include "engine/blocks/layer_registry.h"
#include "engine/catalog/journal.h"

namespace rekeyfs::store {

// After a kill all data the journal speaks of is there. After a power cut some of what was never synced is missing:
// a block that does not open is left out if its layer was not synced afterwards. What comes after the last sync of
// anything is left out from the first such block on, and as a whole if there was one before: so that nothing, a replica
// or a new name, appears without what it was made from.
Status replay(catalog::Catalog& catalog, blocks::LayerRegistry& layers, const catalog::Journal::History& history);

}  // namespace rekeyfs::store
