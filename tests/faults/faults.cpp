#include "tests/faults/faults.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace {

using rekeyfs::test::Faults;

// glibc's own, behind the names that are taken here.
extern "C" void* __libc_malloc(std::size_t size);
extern "C" void* __libc_calloc(std::size_t count, std::size_t size);
extern "C" void* __libc_realloc(void* at, std::size_t size);

thread_local bool counts = true;
thread_local bool commit_failed = false;  // just now

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

std::atomic<bool> is_mapped{false};

Faults* map_faults() {
  const char* const path = std::getenv("REKEYFS_TEST_FAULTS_FILE");
  int fd = -1;
  if (path != nullptr) fd = static_cast<int>(next<long(long, ...)>("syscall")(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC));
  void* const at = ::mmap(nullptr, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  if (at == MAP_FAILED) ::_exit(125);
  if (fd >= 0) ::close(fd);
  is_mapped = true;
  return static_cast<Faults*>(at);
}

Faults& faults() {
  static Faults* const mapped = map_faults();
  return *mapped;
}

// Whether the call of that number is one of those drawn (splitmix64, Vigna).
bool is_drawn(std::int64_t number, std::int64_t one_in, std::int64_t seed) {
  std::uint64_t mixed = static_cast<std::uint64_t>(number) + static_cast<std::uint64_t>(seed) * 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
  return (mixed ^ (mixed >> 31)) % static_cast<std::uint64_t>(one_in) == 0;
}

// Whether this call is to fail. errno is set if so.
bool fails(Faults::Kind kind) {
  Faults& all = faults();
  if (!counts || (all.kinds.load() & kind) == 0) return false;
  const std::int64_t number = all.calls.fetch_add(1);
  const std::int64_t first = all.first.load(), one_in = all.one_in.load();
  if (one_in > 0 ? !is_drawn(number, one_in, first) : number < first || number > all.last.load()) return false;
  all.failed.fetch_add(1);
  errno = all.error.load();
  return true;
}

bool is_file(int fd) {
  struct stat facts {};
  return ::fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode);
}

bool is_catalog(int fd) {
  char link[64], target[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = ::readlink(link, target, sizeof target - 1);
  target[std::max<ssize_t>(size, 0)] = '\0';
  return std::strstr(target, ".mdb") != nullptr;
}

// As LMDB's is that makes a commit count.
bool is_synchronous(int fd) { return (::fcntl(fd, F_GETFL) & O_DSYNC) != 0; }

// How much of a transfer takes place; 0: it is interrupted.
std::size_t shortened(int fd, std::size_t size) {
  thread_local unsigned turn = 0;
  if (size == 0 || faults().short_transfers.load() == 0 || is_catalog(fd)) return size;
  return ++turn % 3 == 0 ? 0 : std::max<std::size_t>(1, size * (turn % 3) / 3);
}

template <typename Transfer>
ssize_t transfer(Faults::Kind kind, int fd, std::size_t size, Transfer some) {
  if (!is_file(fd)) return some(size);
  if (fails(kind)) {
    const int error = errno;
    if (kind == Faults::write) some(size / 2);
    errno = error;
    return -1;
  }
  const std::size_t part = shortened(fd, size);
  if (part > 0 || size == 0) return some(part);
  errno = EINTR;
  return -1;
}

template <typename Call>
auto unless_it_fails(Faults::Kind kind, Call call) -> decltype(call()) {
  if (fails(kind)) return -1;
  return call();
}

mode_t mode_of(int flags, va_list arguments) { return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0; }

void* allocate(std::size_t size) {
  if (fails(Faults::memory)) throw std::bad_alloc();
  if (void* const at = __libc_malloc(size > 0 ? size : 1)) return at;
  throw std::bad_alloc();
}

}  // namespace

extern "C" {

Faults* rekeyfs_faults() { return &faults(); }
void rekeyfs_faults_count_this_thread(bool count) { counts = count; }

ssize_t pread(int fd, void* out, size_t size, off_t offset) {
  static auto* const real = next<ssize_t(int, void*, size_t, off_t)>("pread");
  return transfer(Faults::read, fd, size, [&](size_t part) { return real(fd, out, part, offset); });
}
ssize_t pread64(int fd, void* out, size_t size, off_t offset) { return pread(fd, out, size, offset); }

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  static auto* const real = next<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  const auto some = [&](size_t part) { return real(fd, bytes, part, offset); };
  const bool takes_it_back = std::exchange(commit_failed, false) && is_catalog(fd);
  if (!takes_it_back && is_synchronous(fd)) commit_failed = fails(Faults::commit);
  if (commit_failed) some(size);  // what cannot be synced is there to be read
  if (!takes_it_back && !commit_failed) return transfer(Faults::write, fd, size, some);
  errno = faults().error.load();
  return -1;
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t offset) { return pwrite(fd, bytes, size, offset); }

// LMDB's; libfuse's goes to a device.
ssize_t writev(int fd, const iovec* pieces, int count) {
  static auto* const real = next<ssize_t(int, const iovec*, int)>("writev");
  if (is_file(fd) && fails(Faults::write)) return -1;
  return real(fd, pieces, count);
}

int fsync(int fd) {
  static auto* const real = next<int(int)>("fsync");
  return unless_it_fails(Faults::sync, [&] { return real(fd); });
}
int fdatasync(int fd) {
  static auto* const real = next<int(int)>("fdatasync");
  return unless_it_fails(Faults::sync, [&] { return real(fd); });
}
int syncfs(int fd) noexcept {
  static auto* const real = next<int(int)>("syncfs");
  return unless_it_fails(Faults::sync, [&] { return real(fd); });
}

int open(const char* path, int flags, ...) {
  static auto* const real = next<int(const char*, int, ...)>("open");
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return unless_it_fails(Faults::open, [&] { return real(path, flags, mode); });
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open(path, flags, mode);
}

int fallocate(int fd, int mode, off_t offset, off_t size) {
  static auto* const real = next<int(int, int, off_t, off_t)>("fallocate");
  return unless_it_fails(Faults::space, [&] { return real(fd, mode, offset, size); });
}
int fallocate64(int fd, int mode, off_t offset, off_t size) { return fallocate(fd, mode, offset, size); }

int mkdirat(int fd, const char* path, mode_t mode) noexcept {
  static auto* const real = next<int(int, const char*, mode_t)>("mkdirat");
  return unless_it_fails(Faults::names, [&] { return real(fd, path, mode); });
}
int unlinkat(int fd, const char* path, int flags) noexcept {
  static auto* const real = next<int(int, const char*, int)>("unlinkat");
  return unless_it_fails(Faults::names, [&] { return real(fd, path, flags); });
}
int renameat(int from_fd, const char* from, int to_fd, const char* to) noexcept {
  static auto* const real = next<int(int, const char*, int, const char*)>("renameat");
  return unless_it_fails(Faults::names, [&] { return real(from_fd, from, to_fd, to); });
}

long syscall(long number, ...) noexcept {
  static auto* const real = next<long(long, ...)>("syscall");
  long arguments[6];
  va_list list;
  va_start(list, number);
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  if (number == SYS_openat2 && fails(Faults::open)) return -1;
  return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

// Before the mapping there is nobody to ask, and finding it needs memory.
void* malloc(size_t size) noexcept { return is_mapped && fails(Faults::libraries_memory) ? nullptr : __libc_malloc(size); }
void* calloc(size_t count, size_t size) noexcept {
  return is_mapped && fails(Faults::libraries_memory) ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* at, size_t size) noexcept {
  return is_mapped && fails(Faults::libraries_memory) ? nullptr : __libc_realloc(at, size);
}

}  // extern "C"

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* at) noexcept { std::free(at); }
void operator delete[](void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t) noexcept { std::free(at); }
