#include "tools/holders.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <system_error>

#include <unistd.h>

#include "engine/base/child_process.h"
#include "engine/base/pipe.h"
#include "engine/base/read.h"

namespace rekeyfs::tools {
namespace {

namespace stdfs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{2000};

// False if it cannot be read: a process of another user, or one that has just ended.
bool points_into(const std::string& link, const std::string& mountpoint) {
  std::array<char, PATH_MAX> text;
  const ssize_t size = readlink(link.c_str(), text.data(), text.size());
  if (size < 0) return false;
  const std::string_view target(text.data(), static_cast<std::size_t>(size));
  return target == mountpoint || target.starts_with(mountpoint + "/");
}

bool holds(const std::string& process, const std::string& mountpoint) {
  for (const char* link : {"/cwd", "/root", "/exe"})
    if (points_into(process + link, mountpoint)) return true;
  std::error_code unreadable;
  for (stdfs::directory_iterator at(process + "/fd", unreadable), end; !unreadable && at != end;
       at.increment(unreadable))
    if (points_into(at->path().string(), mountpoint)) return true;
  return false;
}

std::string command_of(const std::string& process) {
  std::ifstream file(process + "/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

std::vector<pid_t> processes_of(const std::string& proc) {
  std::vector<pid_t> processes;
  std::error_code unreadable;
  for (stdfs::directory_iterator at(proc, unreadable), end; !unreadable && at != end; at.increment(unreadable)) {
    const std::string name = at->path().filename().string();
    if (name.find_first_not_of("0123456789") == std::string::npos) processes.push_back(std::stoi(name));
  }
  std::sort(processes.begin(), processes.end());
  return processes;
}

// Prints one line per process as soon as it is found: id and command. Returns an exit code.
int print_holders(const std::string& mountpoint, const std::string& proc, pid_t asking, int out) {
  for (const pid_t process : processes_of(proc)) {
    const std::string place = proc + "/" + std::to_string(process);
    if (process == asking || process == getpid() || !holds(place, mountpoint)) continue;
    const std::string line = std::to_string(process) + " " + command_of(place) + "\n";
    if (write(out, line.data(), line.size()) < 0) return 1;
  }
  return 0;
}

std::vector<Holder> parse(const std::string& text) {
  std::vector<Holder> holders;
  std::istringstream lines(text);
  Holder holder{};
  while (lines >> holder.process && lines.get() == ' ' && std::getline(lines, holder.command)) holders.push_back(holder);
  return holders;
}

}  // namespace

// A child process does the search: a process that hangs in the kernel can be abandoned, a thread cannot.
std::vector<Holder> holders_of(const std::string& mountpoint, const std::string& proc) {
  Result<Pipe> pipe = Pipe::create();
  if (!pipe) return {};
  const pid_t asking = getpid();
  auto child = ChildProcess::fork([&](int to) { return print_holders(mountpoint, proc, asking, to); }, pipe->write);
  if (!child) return {};
  pipe->write.reset();
  const std::string text = read_to_end(pipe->read.get(), kPatience);
  child->abandon();
  return parse(text);
}

}  // namespace rekeyfs::tools
