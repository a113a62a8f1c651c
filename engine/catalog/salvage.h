// Salvage: what can still be read of a damaged catalog, and a new catalog made of it.
//
// Reads LMDB's file page by page (lmdb_pages.h), so that no damage makes it follow a wrong pointer. Only records that
// open are taken, from the tree of the last commit and, for what a damaged branch hides, from leaf pages that the list
// of free pages does not name: a page that was given up holds older records, which open, too. Memory grows with the
// file. Single-threaded.
#pragma once

#include <map>
#include <string>

#include "engine/catalog/record_seal.h"
#include "engine/io/storage.h"

namespace rekeyfs::catalog {

struct Salvaged {
  std::map<std::string, std::string> records;  // as they lie there, without the super record
  SuperRecord super;                           // of the last checkpoint, as far as it could be found
  bool whole = false;                          // the digest proves that these are all
};

// `path` is that of the file in the store.
Result<Salvaged> salvage(io::Storage& storage, const std::string& path, const crypto::Key& root, const Uuid& store);

// Makes a catalog in the empty `directory` of the local file system. Durable when it returns.
Status rebuild(const std::string& directory, const Salvaged& salvaged, const crypto::Key& root, const Uuid& store);

}  // namespace rekeyfs::catalog
