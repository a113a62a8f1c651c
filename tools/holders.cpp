#include "tools/holders.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>

#include <unistd.h>

namespace rekeyfs::tools {
namespace {

namespace stdfs = std::filesystem;

bool points_into(const stdfs::path& link, const std::string& mountpoint) {
  std::error_code unreadable;  // another user's process, or one that has just ended
  std::string target = stdfs::read_symlink(link, unreadable).string();
  return !unreadable && (target == mountpoint || target.starts_with(mountpoint + "/"));
}

bool holds(const stdfs::path& process, const std::string& mountpoint) {
  for (const char* link : {"cwd", "root", "exe"})
    if (points_into(process / link, mountpoint)) return true;
  std::error_code unreadable;
  for (stdfs::directory_iterator at(process / "fd", unreadable), end; !unreadable && at != end;
       at.increment(unreadable))
    if (points_into(at->path(), mountpoint)) return true;
  return false;
}

std::string command_of(const stdfs::path& process) {
  std::ifstream file(process / "comm");
  std::string name;
  std::getline(file, name);
  return name;
}

}  // namespace

std::vector<Holder> holders_of(const std::string& mountpoint) {
  std::vector<Holder> holders;
  std::error_code unreadable;
  for (stdfs::directory_iterator at("/proc", unreadable), end; !unreadable && at != end; at.increment(unreadable)) {
    std::string name = at->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto process = static_cast<pid_t>(std::stol(name));
    if (process != getpid() && holds(at->path(), mountpoint)) holders.push_back({process, command_of(at->path())});
  }
  std::sort(holders.begin(), holders.end(), [](const Holder& a, const Holder& b) { return a.process < b.process; });
  return holders;
}

}  // namespace rekeyfs::tools
