// Leftovers: files of layers without a record. A power cut leaves them: it loses the records of a new image, or undoes
// the removal of a layer.
#pragma once

#include "engine/catalog/catalog.h"
#include "engine/io/storage.h"

namespace rekeyfs::store {

// Marks these layers as garbage in the catalog's memory, so that a checkpoint removes their files and their numbers are
// not reused. For recovery only: call it when all records are known and before any record is added. Cost: lists the
// directories of layers and opens the record of each layer, about 1 us.
Status mark_leftovers(io::Storage& storage, catalog::Catalog& catalog);

}  // namespace rekeyfs::store
