// A preload library for a test: simulates a slow disk. Every pwrite of 8 KiB or more takes 20 ms longer, so that
// requests that the kernel has sent to the daemon queue up.
#include <cstddef>

#include <dlfcn.h>
#include <sys/types.h>
#include <unistd.h>

extern "C" ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  static auto* const real = reinterpret_cast<decltype(&pwrite)>(::dlsym(RTLD_NEXT, "pwrite"));
  if (size >= 8192) ::usleep(20'000);
  return real(fd, bytes, size, offset);
}
extern "C" ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t offset) {
  return pwrite(fd, bytes, size, offset);
}
