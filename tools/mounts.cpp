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

// The part of the path below the directory, without a leading slash; empty for the directory itself.
std::string remainder(const std::string& path, const std::string& directory) {
  const std::size_t start = directory == "/" ? 1 : directory.size() + 1;
  return path.size() > start ? path.substr(start) : "";
}

std::string joined(const std::string& root, const std::string& below) {
  const std::string above = remainder(root, "/");
  return above.empty() || below.empty() ? above + below : above + "/" + below;
}

bool is_in(const Mount& mount, const std::string& path) {
  const std::string& top = mount.mountpoint;
  return top == "/" || path == top || (path.size() > top.size() && path.starts_with(top) && path[top.size()] == '/');
}

bool is_whole_of(const Mount& mount, const std::string& device) { return mount.device == device && mount.is_whole(); }

}  // namespace

Outcome<std::optional<Mount>> mount_at(const std::string& mountpoint) {
  return last_that([](const Mount& mount, const std::string& path) { return mount.mountpoint == path; }, mountpoint);
}

Outcome<std::optional<Mount>> mount_of_store(const std::string& store) {
  return last_that(
      [](const Mount& mount, const std::string& path) { return mount.is_rekeyfs() && mount.is_whole() && mount.source == path; },
      store);
}

Outcome<std::vector<Way>> ways_to(const std::string& path) {
  RK_TRY_ASSIGN(const std::optional<Mount> mount, last_that(is_in, path));
  std::vector<Way> ways;
  if (!mount || !mount->is_rekeyfs()) return ways;
  const std::string below = remainder(path, mount->mountpoint);
  RK_TRY_ASSIGN(const std::optional<Mount> whole, last_that(is_whole_of, mount->device));
  if (whole) ways.push_back({whole->mountpoint, joined(mount->root, below)});
  ways.push_back({mount->mountpoint, below});
  const std::filesystem::path parts(path);
  ways.push_back({parts.parent_path().string(), parts.filename().string()});
  return ways;
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
