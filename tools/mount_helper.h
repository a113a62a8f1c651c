// MountHelper: the program as mount(8) calls it, `mount.rekeyfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]`.
#pragma once

#include "tools/mount_store.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

// Was the program called by the name of the helper?
bool is_mount_helper(const char* program);
Outcome<MountRequest> parse_mount_helper(int count, char** arguments);

}  // namespace rekeyfs::tools
