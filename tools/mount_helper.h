// MountHelper: the program as called by mount(8): `mount.rekeyfs STORE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]`.
#pragma once

#include "tools/mount_store.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

// Whether the program was started under the helper's name.
bool is_mount_helper(const char* program);
Outcome<MountRequest> parse_mount_helper(int count, char** arguments);

}  // namespace rekeyfs::tools
