// Mount: serves an open store as a file system until it is unmounted. The interface for tools/.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "engine/base/result.h"
#include "engine/engine.h"

namespace rekeyfs::fs {

struct MountOptions {
  std::string mountpoint;
  // Other users may use the mount; for a mount not made by root, only if /etc/fuse.conf allows it.
  bool allow_other = false;
  bool read_only = false;
  bool no_exec = false;               // no file in the mount can be executed
  bool writeback_cache = false;       // faster small writes, but an acknowledged write may be lost if the daemon dies
  std::uint64_t hot_memory = 0;       // bytes for the content of hot images; 0: no hot images. Needs CAP_SYS_ADMIN
  std::chrono::seconds hot_idle{60};  // how long a hot image is kept after its last close
  std::string fsname;                 // the mount's source in mount tables: the store's path
};

// Whether a file system can be mounted there. If not, the message says what to do.
Status check_mountpoint(const std::string& mountpoint);

// Mounts, and returns when the mount has ended: it was unmounted, or SIGTERM, SIGINT or SIGHUP came. A signal unmounts
// in order; a busy mount is detached after all written data has reached the engine. Calls `ready` once, on another
// thread, when the mount answers. Installs handlers for these signals while it runs, so only one call per process may
// run. The engine stays open.
Status serve(Engine& engine, const MountOptions& options, std::function<void()> ready);

}  // namespace rekeyfs::fs
