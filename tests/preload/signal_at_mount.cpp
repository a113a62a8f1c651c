// A library to be preloaded into rekeyfs by a test: SIGTERM comes the moment the file system is mounted.
#include <csignal>
#include <cstdlib>

#include <dlfcn.h>
#include <sys/mount.h>
#include <unistd.h>

extern "C" int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept {
  static auto* const real = reinterpret_cast<decltype(&mount)>(::dlsym(RTLD_NEXT, "mount"));
  ::unsetenv("LD_PRELOAD");  // not for the programs that the daemon starts
  const int done = real(source, target, type, flags, data);
  if (done == 0) ::kill(::getpid(), SIGTERM);
  return done;
}
