// MountStore: unlocks a store, starts its daemon and returns when the mount is ready; `rekeyfs mount` and mount(8)'s
// helper differ only in their command lines.
#pragma once

#include <string>

#include "tools/mount_options.h"
#include "tools/outcome.h"
#include "tools/unlock.h"

namespace rekeyfs::tools {

struct MountRequest {
  std::string store, mountpoint;
  MountOptionList options;
  UnlockOptions unlock;
  bool foreground = false;
  bool only_check = false;      // mount(8) -f
  std::string mount_namespace;  // a file that stands for it; mount(8) -N. Empty: the one we are in
};

Outcome<ExitCode> mount_store(MountRequest request);

}  // namespace rekeyfs::tools
