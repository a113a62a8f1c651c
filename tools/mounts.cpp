#include "tools/mounts.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include <stdlib.h>

namespace rekeyfs::tools {
namespace {

std::optional<std::string> resolved(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return std::nullopt;
  std::string out = real;
  free(real);
  return out;
}

Outcome<std::optional<Mount>> last_that(bool (*fits)(const Mount&, const std::string&), const std::string& path) {
  RK_TRY_ASSIGN(std::vector<Mount> mounts, fs::list_mounts());
  auto found = std::find_if(mounts.rbegin(), mounts.rend(), [&](const Mount& mount) { return fits(mount, path); });
  return found == mounts.rend() ? std::nullopt : std::optional<Mount>(*found);
}

}  // namespace

Outcome<std::optional<Mount>> mount_at(const std::string& mountpoint) {
  return last_that([](const Mount& mount, const std::string& path) { return mount.mountpoint == path; }, mountpoint);
}

Outcome<std::optional<Mount>> mount_of_store(const std::string& store) {
  return last_that(
      [](const Mount& mount, const std::string& path) { return mount.is_rekeyfs() && mount.source == path; }, store);
}

Outcome<std::string> absolute_path(const std::string& path) {
  if (std::optional<std::string> whole = resolved(path)) return *whole;
  int why = errno;
  std::filesystem::path parts = std::filesystem::path(path).lexically_normal();
  if (!parts.has_filename()) parts = parts.parent_path();  // "a/b/" means "a/b"
  bool unanswered = why == ENOTCONN || why == EACCES || why == EIO;
  if (unanswered && parts.has_filename()) {
    std::optional<std::string> parent = resolved(parts.has_parent_path() ? parts.parent_path().string() : ".");
    if (parent) return (std::filesystem::path(*parent) / parts.filename()).string();
  }
  return unreachable(why, path);
}

tl::unexpected<Failure> unreachable(int error_number, const std::string& path) {
  if (error_number == ENOTCONN)
    return fail(ExitCode::not_mounted,
                path +
                    " is in a mount whose daemon has ended; run rekeyfs umount on its mount point, then "
                    "mount the store again");
  return tl::unexpected<Failure>(error_from_errno(error_number, "open " + path));
}

}  // namespace rekeyfs::tools
