#undef _FILE_OFFSET_BITS  // otherwise the names below would mean their 64-bit variants
#include "tests/support/kill_points.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

using rekeyfs::test::Moment;

// Set before `armed`; constant afterwards.
std::string store;
std::uint64_t chosen_number = 0;
Moment chosen_moment = Moment::before;
int report_to = -1;
std::atomic<bool> armed = false;
std::atomic<std::uint64_t> passed = 0;

bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The kind of a file or directory below the store; empty if it does not exist.
std::string kind_of(int fd, const char* name) {
  char target[PATH_MAX];
  const ssize_t size = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
  if (size <= 0) return "";
  std::string path(target, static_cast<std::size_t>(size));
  if (name != nullptr) path += std::string("/") + name;
  if (path == store) return "store";
  if (!begins(path, (store + "/").c_str())) return "";
  path.erase(0, store.size() + 1);
  if (path == "catalog/data.mdb") return (::fcntl(fd, F_GETFL) & O_DSYNC) != 0 ? "catalog meta page" : "catalog";
  if (begins(path, "layers/") && !contains(path, ".")) return "layer names";
  if (begins(path, "layers/")) return contains(path, ".table") ? "table" : contains(path, ".spill") ? "spill" : "data";
  if (path == "journal") return "journal names";
  if (begins(path, "journal/")) return "journal";
  return path;
}

[[noreturn]] void die(const std::string& point) {
  const std::string line = point + "\n";
  if (::write(report_to, line.data(), line.size()) < 0) ::abort();
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

// Runs `call`, which does `verb` to the file, or to `name` in the directory. `half`, if not null, does half of it.
template <typename Call, typename Half>
auto pass(int fd, const char* name, const char* verb, Call call, Half half) {
  const std::string kind = armed ? kind_of(fd, name) : "";
  if (kind.empty() || ++passed != chosen_number) return call();
  const std::string point = kind + " " + verb;
  if (chosen_moment == Moment::halfway) half();
  if (chosen_moment == Moment::after) call();
  die(point);
}
template <typename Call>
auto pass(int fd, const char* name, const char* verb, Call call) {
  return pass(fd, name, verb, call, [] {});
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

ssize_t write_at(int fd, const void* bytes, size_t size, off64_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64");
  return pass(fd, nullptr, "write", [=] { return real(fd, bytes, size, offset); }, [=] { real(fd, bytes, size / 2, offset); });
}
int change_space(int fd, int mode, off64_t offset, off64_t size) {
  static auto* const real = next<int(int, int, off64_t, off64_t)>("fallocate64");
  const char* verb = (mode & FALLOC_FL_PUNCH_HOLE) != 0 ? "punch" : "allocate";
  return pass(fd, nullptr, verb, [=] { return real(fd, mode, offset, size); });
}

}  // namespace

extern "C" {

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) { return write_at(fd, bytes, size, offset); }
ssize_t pwrite64(int fd, const void* bytes, size_t size, off64_t offset) { return write_at(fd, bytes, size, offset); }
ssize_t writev(int fd, const iovec* parts, int count) {
  static auto* const real = next<ssize_t(int, const iovec*, int)>("writev");
  return pass(fd, nullptr, "write", [=] { return real(fd, parts, count); }, [=] { real(fd, parts, count / 2); });
}
int fdatasync(int fd) {
  static auto* const real = next<int(int)>("fdatasync");
  return pass(fd, nullptr, "sync", [=] { return real(fd); });
}
int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return pass(fd, nullptr, "sync", [=] { return real(fd); });
}
int syncfs(int fd) noexcept {
  static auto* const real = next<int(int)>("syncfs");
  return pass(fd, nullptr, "sync", [=] { return real(fd); });
}
int fallocate(int fd, int mode, off_t offset, off_t size) { return change_space(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return change_space(fd, mode, offset, size); }
int unlinkat(int fd, const char* name, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return pass(fd, name, "remove", [=] { return real(fd, name, flags); });
}
int renameat(int fd, const char* name, int new_fd, const char* new_name) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*)>("renameat");
  return pass(fd, name, "rename", [=] { return real(fd, name, new_fd, new_name); });
}

}  // extern "C"

namespace rekeyfs::test {

void arm_kill_point(const std::string& directory, std::uint64_t number, Moment moment, int report) {
  store = directory;
  chosen_number = number;
  chosen_moment = moment;
  report_to = report;
  armed = true;
}
std::uint64_t kill_points_passed() { return passed; }

}  // namespace rekeyfs::test
