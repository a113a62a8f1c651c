// A preload library for tests: simulates a slow disk. Every pwrite of 8 KiB or more takes 20 ms longer, or as many
// milliseconds as $REKEYFS_TEST_SLOW_DISK_MS says, so that requests that the kernel has sent to the daemon queue up.
#include <cstddef>
#include <cstdlib>

#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

extern "C" ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  static auto* const real = reinterpret_cast<decltype(&pwrite)>(::dlsym(RTLD_NEXT, "pwrite"));
  static const char* const milliseconds = ::getenv("REKEYFS_TEST_SLOW_DISK_MS");
  static const auto delay = static_cast<useconds_t>(milliseconds != nullptr ? std::atoi(milliseconds) : 20) * 1000;
  if (size >= 8192) ::usleep(delay);
  return real(fd, bytes, size, offset);
}
extern "C" ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t offset) {
  return pwrite(fd, bytes, size, offset);
}
