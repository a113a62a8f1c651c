#include "tools/mounts.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include <stdlib.h>

namespace rekeyfs::tools {
namespace {

bool is_octal(std::string_view digits) {
  return digits.size() == 3 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '7'; });
}

// Blanks, tabs, line feeds and backslashes are written as \040 and so on.
std::string unescaped(std::string_view field) {
  std::string out;
  for (std::size_t i = 0; i < field.size(); ++i) {
    std::string_view digits = field.substr(std::min(i + 1, field.size()), 3);
    if (field[i] != '\\' || !is_octal(digits)) {
      out += field[i];
      continue;
    }
    out += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += 3;
  }
  return out;
}

std::optional<std::string> resolved(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return std::nullopt;
  std::string out = real;
  free(real);
  return out;
}

Outcome<std::optional<Mount>> last_that(bool (*fits)(const Mount&, const std::string&), const std::string& path) {
  RK_TRY_ASSIGN(std::vector<Mount> mounts, list_mounts());
  auto found = std::find_if(mounts.rbegin(), mounts.rend(), [&](const Mount& mount) { return fits(mount, path); });
  return found == mounts.rend() ? std::nullopt : std::optional<Mount>(*found);
}

}  // namespace

// "36 35 98:0 /root /mountpoint options shared:1 - type source superoptions": optional fields before the dash.
std::vector<Mount> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || std::distance(dash, fields.end()) < 3) continue;
    mounts.push_back({unescaped(fields[4]), unescaped(dash[1]), unescaped(dash[2])});
  }
  return mounts;
}

Outcome<std::vector<Mount>> list_mounts() {
  std::ifstream file("/proc/self/mountinfo");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) return fail(ExitCode::failure, "/proc/self/mountinfo cannot be read; is /proc mounted?");
  return parse_mountinfo(text);
}

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
  if (!parts.has_filename()) parts = parts.parent_path();  // "a/b/" names b
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
