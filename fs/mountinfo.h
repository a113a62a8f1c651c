// Mountinfo: the mounts that this process sees (/proc/self/mountinfo). Thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace rekeyfs::fs {

struct MountEntry {
  std::string mountpoint;
  std::string type;    // "fuse.rekeyfs"
  std::string source;  // for a rekeyfs mount: the store's path
  std::string device;  // "0:35", as in /sys
  std::string root = "/";  // the directory of the file system that is mounted: "/" unless it is a bind mount of another

  bool is_rekeyfs() const { return type == "fuse.rekeyfs"; }
  bool is_whole() const { return root == "/"; }
};

// Ordered from oldest to newest, so the last one with a given mount point is on top. Errc::io if /proc is missing.
Result<std::vector<MountEntry>> list_mounts();
// Skips malformed lines.
std::vector<MountEntry> parse_mountinfo(std::string_view text);

}  // namespace rekeyfs::fs
