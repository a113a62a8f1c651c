// A preload library for a test: after each fdatasync, adds a byte to the file named by REKEYFS_TEST_SYNC_COUNT.
#include <cstdlib>

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

extern "C" int fdatasync(int fd) {
  static auto* const real = reinterpret_cast<decltype(&fdatasync)>(::dlsym(RTLD_NEXT, "fdatasync"));
  static const char* const path = std::getenv("REKEYFS_TEST_SYNC_COUNT");
  static const int count = path != nullptr ? ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
  const int result = real(fd);
  if (result == 0 && count >= 0 && ::write(count, "s", 1) != 1) ::abort();
  return result;
}
