// Salvage: reads what is still readable of a damaged catalog and builds a new catalog from it.
//
// Reads LMDB's file page by page (lmdb_pages.h), so that damage cannot cause a wrong pointer to be followed. Takes only
// records that decrypt: from the tree of the last commit and, for parts hidden by a damaged branch, from leaf pages
// that are not in the list of free pages. A freed page holds older records, which decrypt, too. Memory grows with the
// file. Single-threaded.
#pragma once

#include <map>
#include <string>

#include "engine/catalog/record_seal.h"
#include "engine/io/storage.h"

namespace rekeyfs::catalog {

struct Salvaged {
  std::map<std::string, std::string> records;  // as stored, without the super record
  SuperRecord super;                           // of the last checkpoint, as far as found
  bool whole = false;                          // the digest proves that no record is missing
};

// `path`: the database file in the store.
Result<Salvaged> salvage(io::Storage& storage, const std::string& path, const crypto::Key& root, const Uuid& store);

// Creates a catalog in the empty `directory` of the local file system. Durable when it returns.
Status rebuild(const std::string& directory, const Salvaged& salvaged, const crypto::Key& root, const Uuid& store);

}  // namespace rekeyfs::catalog
