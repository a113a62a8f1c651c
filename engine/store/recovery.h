// Recovery: plays the journal's history back into the catalog and the block tables.
#pragma once

#include "engine/blocks/layer_registry.h"
#include "engine/catalog/journal.h"

namespace rekeyfs::store {

// Puts the master keys that the history speaks of into the catalog. Must precede replay(): it verifies blocks with them.
Status replay_keys(catalog::Catalog& catalog, const catalog::Journal::History& history);

// After a kill all data the journal speaks of is there. After a power cut some of what was never synced is missing:
// a block that does not open is left out if its layer was not synced afterwards. What comes after the last sync of
// anything is left out from the first such block on, and as a whole if there was one before: so that nothing, a replica
// or a new name, appears without what it was made from.
//
// What cannot be read may be there all the same, so that is an error (the disk, no descriptor, no memory), before
// anything was changed. A check goes on instead, with what the disk fails to read as missing.
enum class Unreadable { is_error, is_missing };
Status replay(catalog::Catalog& catalog, blocks::LayerRegistry& layers, const catalog::Journal::History& history,
              Unreadable unreadable = Unreadable::is_error);

}  // namespace rekeyfs::store
