// Recovery: applies the journal's history to the catalog and the block tables.
#pragma once

#include "engine/blocks/layer_registry.h"
#include "engine/catalog/journal.h"

namespace rekeyfs::store {

// Puts the master keys in the history into the catalog. Must precede replay(), which verifies blocks with them.
Status replay_keys(catalog::Catalog& catalog, const catalog::Journal::History& history);

// After a kill, all data that the journal names is there. After a power cut, some unsynced data may be missing. A block
// that does not decrypt is skipped if its layer was not synced afterwards. Of the records after the last sync of any
// layer, all from the first such block on are skipped, and all of them if a block before that sync was skipped. So
// nothing (a replica, a new name) appears without the data that it was made from.
//
// A block that cannot be read (disk error, no descriptor, no memory) may still exist, so replay() then fails before it
// changes anything. A check continues instead and treats data that the disk fails to read as missing.
enum class Unreadable { is_error, is_missing };
Status replay(catalog::Catalog& catalog, blocks::LayerRegistry& layers, const catalog::Journal::History& history,
              Unreadable unreadable = Unreadable::is_error);

}  // namespace rekeyfs::store
