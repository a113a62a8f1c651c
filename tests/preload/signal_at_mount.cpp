// A preload library for a test: sends a signal at the worst moments of mounting. Root mounts without a helper and gets
// SIGTERM immediately after mounting. An ordinary user gets what Ctrl-C at a terminal sends: SIGINT to the whole
// process group, at every moment at which fusermount3 runs and its answer is awaited.
#include <csignal>
#include <cstdlib>

#include <dlfcn.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

bool has_answered(int socket) {
  pollfd answer{socket, POLLIN, 0};
  return ::poll(&answer, 1, 0) > 0;
}

}  // namespace

extern "C" int mount(const char* source, const char* target, const char* type, unsigned long flags, const void* data) noexcept {
  static auto* const real = next<decltype(mount)>("mount");
  ::unsetenv("LD_PRELOAD");  // not for the programs that the daemon starts
  const int done = real(source, target, type, flags, data);
  if (done == 0) ::kill(::getpid(), SIGTERM);
  return done;
}

extern "C" ssize_t recvmsg(int socket, msghdr* message, int flags) {
  static auto* const real = next<decltype(recvmsg)>("recvmsg");
  while (::getuid() != 0 && !has_answered(socket)) ::kill(0, SIGINT);
  return real(socket, message, flags);
}
