// The walk over a whole catalog before it is trusted: in a child process, because LMDB follows what its pages
// say and dies of damaged ones (measured: SIGBUS or SIGSEGV in 54 of 600 bit flips).
#pragma once

#include <string>

#include "engine/base/ids.h"
#include "engine/crypto/key.h"

namespace rekeyfs::catalog {

struct Census {
  std::uint64_t nodes = 0;  // inode records
};

// Every record opens, is found where it is looked for, and the digest over them is the super record's; LMDB's next
// commit overwrites none. Forks: single-threaded callers only. Errc::corrupt with the next step otherwise. Cost: about
// 1.5 us a record.
Result<Census> verify_catalog(const std::string& directory, const crypto::Key& root, const Uuid& store);

}  // namespace rekeyfs::catalog
