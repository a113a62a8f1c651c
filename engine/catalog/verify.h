// Verifies a whole catalog before it is trusted, in a child process: LMDB follows pointers in damaged pages and crashes
// (measured: SIGBUS or SIGSEGV in 54 of 600 bit flips).
#pragma once

#include <string>

#include "engine/base/ids.h"
#include "engine/crypto/key.h"

namespace rekeyfs::catalog {

struct Census {
  std::uint64_t nodes = 0;  // number of inode records
};

// Checks that every record decrypts and is found under its key, that the digest over all records matches the super
// record, and that LMDB's next commit overwrites no record. Forks: the caller must be single-threaded. On damage,
// Errc::corrupt with the next step. Cost: about 1.5 us per record.
Result<Census> verify_catalog(const std::string& directory, const crypto::Key& root, const Uuid& store);

}  // namespace rekeyfs::catalog
