// Mount: serves an open store as a file system until it is unmounted. What tools/ call.
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
  bool allow_other = false;  // other users may use the mount; for others than root only if /etc/fuse.conf says so
  bool read_only = false;
  bool no_exec = false;               // nothing in the mount can be run as a program
  bool writeback_cache = false;       // faster small writes, but what a write acknowledged may be lost with the daemon
  std::uint64_t hot_memory = 0;       // bytes for the content of hot images; 0: none are. Needs CAP_SYS_ADMIN
  std::chrono::seconds hot_idle{60};  // a hot image that nobody has open any more is kept for so long
  std::string fsname;                 // shown as the mount's source: the store's path
  unsigned threads = 0;               // that serve requests; 0: a number that suits most machines
};

// Can something be mounted there? The message says what to do if not.
Status check_mountpoint(const std::string& mountpoint);

// Mounts, and returns when the mount is gone: somebody unmounted it, or SIGTERM, SIGINT or SIGHUP came. A signal
// unmounts in order; where the mount is in use it is detached after everything written has reached the engine. `ready`
// is called once, on another thread, when the mount answers. Installs handlers for those signals while it runs, so it
// runs once per process. The engine stays open.
Status serve(Engine& engine, const MountOptions& options, std::function<void()> ready);

}  // namespace rekeyfs::fs
