// check_mountpoint of fs/mount.h.

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include <fcntl.h>
#include <sys/stat.h>

#include "fs/mount.h"
#include "fs/mountinfo.h"

namespace rekeyfs::fs {
namespace {

std::string absolute_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(::realpath(path.c_str(), nullptr), &std::free);
  return resolved ? resolved.get() : path;
}

}  // namespace

Status check_mountpoint(const std::string& mountpoint) {
  struct statx status {};
  // statx with a forced sync, because the kernel caches the attributes of a mount longer than its daemon may live.
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_STATX_FORCE_SYNC, STATX_TYPE, &status) < 0) {
    if (errno == ENOTCONN)
      return fail(Errc::busy, mountpoint + " is a mount whose daemon has ended; run fusermount3 -u " + mountpoint +
                                  " and mount again");
    if (errno == ENOENT)
      return fail(Errc::not_found, mountpoint + " does not exist; create the directory with mkdir " + mountpoint);
    return fail(error_from_errno(errno, "examine the mount point " + mountpoint));
  }
  if (!S_ISDIR(status.stx_mode))
    return fail(Errc::not_directory, mountpoint + " is not a directory; give a directory to mount on");
  RK_TRY_ASSIGN(const std::vector<MountEntry> mounts, list_mounts());
  const std::string absolute = absolute_path(mountpoint);
  if (std::any_of(mounts.begin(), mounts.end(),
                  [&](const MountEntry& mount) { return mount.is_rekeyfs() && mount.mountpoint == absolute; }))
    return fail(Errc::busy, "a store is already mounted at " + mountpoint + "; run rekeyfs umount " + mountpoint +
                                " first, or mount elsewhere");
  return {};
}

}  // namespace rekeyfs::fs
