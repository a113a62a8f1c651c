// check_mountpoint of fs/mount.h.

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>

#include "fs/mount.h"

namespace rekeyfs::fs {
namespace {

std::string absolute_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  return resolved ? resolved.get() : path;
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(const std::string& field) {
  std::string out;
  for (std::size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size()) {
      out.push_back(static_cast<char>(std::stoi(field.substr(i + 1, 3), nullptr, 8)));
      i += 3;
    } else {
      out.push_back(field[i]);
    }
  }
  return out;
}

// A line: id, parent, device, root, mount point, options, optional fields, "-", type, source, options.
bool is_rekeyfs_mount(const std::string& path) {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string field, mounted_at;
    for (int i = 0; i < 5; ++i) fields >> mounted_at;
    while (fields >> field && field != "-") {
    }
    fields >> field;
    if (field == "fuse.rekeyfs" && unescape(mounted_at) == path) return true;
  }
  return false;
}

}  // namespace

Status check_mountpoint(const std::string& mountpoint) {
  struct statx status {};
  // Asked for anew, because the kernel remembers the attributes of a mount longer than its daemon may live.
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_STATX_FORCE_SYNC, STATX_TYPE, &status) < 0) {
    if (errno == ENOTCONN)
      return fail(Errc::busy, mountpoint + " is a mount whose daemon is gone; run fusermount3 -u " + mountpoint +
                                  " and mount again");
    if (errno == ENOENT)
      return fail(Errc::not_found, mountpoint + " does not exist; create the directory with mkdir " + mountpoint);
    return fail(error_from_errno(errno, "look at the mount point " + mountpoint));
  }
  if (!S_ISDIR(status.stx_mode))
    return fail(Errc::not_directory, mountpoint + " is not a directory; give a directory to mount on");
  if (is_rekeyfs_mount(absolute_path(mountpoint)))
    return fail(Errc::busy, "a store is mounted at " + mountpoint + " already; run rekeyfs umount " + mountpoint +
                                " first, or mount elsewhere");
  return {};
}

}  // namespace rekeyfs::fs
