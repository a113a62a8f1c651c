// Caller: the user on whose behalf a call is made. The umask is already applied (FUSE: by the kernel).
#pragma once

#include <sys/types.h>

namespace rekeyfs {

struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
  // May do what only operators may, and use every key. The engine never concludes this from the user id: who mounted
  // the store is an operator, and root unless the call came from below the root of the mount (fs/authority.h).
  bool is_operator = false;
};

inline constexpr Caller kOperator{0, 0, true};  // for work that no user asked for

}  // namespace rekeyfs
