// Leftovers: files of layers that no record speaks of. A power cut leaves them, of an image whose records it took, or of
// a layer whose removal it took back.
#pragma once

#include "engine/catalog/catalog.h"
#include "engine/io/storage.h"

namespace rekeyfs::store {

// Marks them as garbage in the catalog's memory, so that checkpoints remove them, and their numbers are not given out
// again. For recovery only, when all records are known and before anything adds to them. Cost: lists the directories of
// layers, and opens the record of each layer, about 1 us.
Status mark_leftovers(io::Storage& storage, catalog::Catalog& catalog);

}  // namespace rekeyfs::store
