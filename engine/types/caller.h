// Caller: the user on whose behalf a call is made. The umask is already applied (FUSE: by the kernel).
#pragma once

#include <sys/types.h>

namespace rekeyfs {

struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
};

}  // namespace rekeyfs
