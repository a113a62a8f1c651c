// MountStore: unlocks a store, starts its daemon and returns when the mount is ready. Shared by `rekeyfs mount` and the
// helper of mount(8), which only parse command lines.
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
  std::string mount_namespace;  // path of a namespace file; mount(8) -N. Empty: the current namespace
};

Outcome<ExitCode> mount_store(MountRequest request);

}  // namespace rekeyfs::tools
