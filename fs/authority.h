// Authority: who is an operator of the mount, and what is known of a caller beside his user id. Thread-safe.
//
// The user that mounted the store is an operator, and root. For calls of the file system the kernel has checked what
// the caller may do with the file, so it is enough to know the user. A command, and an attribute that only operators
// may set, ask for more, because root of a container has the user id 0, too: see each function.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/ids.h"
#include "engine/types/caller.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// The caller of an operation on content or names, or of a command that came through an open image.
Caller caller_of(fuse_req_t req);

// The caller of an operation that operators may do more with than others. Root counts as an operator only with
// CAP_SYS_ADMIN in its effective set. Reads /proc, so not for operations that must be fast.
Caller privileged_caller_of(fuse_req_t req);

// The caller of a command that came through the descriptor of a directory. Operators are operators through the root
// directory of the mount only: a bind mount of another directory gives nobody more than what is below it.
Caller commander_of(fuse_req_t req, Ino through);

// What /proc says of the calling thread. Without it (the caller has ended, or /proc hides it) there is nothing that
// gives a right: no groups, no capabilities.
struct Credentials {
  std::vector<gid_t> groups;  // supplementary ones
  std::uint64_t capabilities = 0;  // effective set, bit n: capability n
};
Credentials credentials_of(pid_t thread);

}  // namespace rekeyfs::fs
