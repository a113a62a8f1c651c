// The system call filter: what it refuses, in every thread, and what it must allow.
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temp_directory.h"
#include "tools/sandbox.h"

namespace rekeyfs::tools {
namespace {

bool is_refused(long result) {
  return result == -1 && errno == EPERM;
}

// Each with arguments that fail otherwise, with another error.
bool are_refused() {
  return is_refused(ptrace(PTRACE_PEEKDATA, 0, nullptr, nullptr)) && is_refused(syscall(SYS_setns, -1, 0)) &&
         is_refused(syscall(SYS_bpf, -1, 0, 0)) && is_refused(syscall(SYS_process_vm_readv, 0, 0, 0, 0, 0, 1)) &&
         is_refused(syscall(SYS_finit_module, -1, 0, 1 << 20)) && is_refused(syscall(SYS_keyctl, -1)) &&
         is_refused(syscall(SYS_open_by_handle_at, -1, 0, 0)) && is_refused(syscall(SYS_io_uring_setup, 0, 0)) &&
         is_refused(socket(AF_INET, SOCK_STREAM, 0)) && is_refused(socket(AF_PACKET, SOCK_RAW, 0));
}

bool are_allowed() {
  const bool unmounts = umount2("/proc/self/no such place", UMOUNT_NOFOLLOW) == -1 && errno == ENOENT;
  const bool logs = socket(AF_UNIX, SOCK_DGRAM, 0) >= 0;
  const pid_t child = fork();
  if (child == 0) ::execl("/bin/true", "true", nullptr);
  int status = -1;
  ::waitpid(child, &status, 0);
  return unmounts && logs && status == 0;
}

// In a child, because nothing brings back what was given up. Its exit code is the number of the first of `steps` that
// fails, or 0.
class SandboxTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "only root's daemon has a sandbox";
  }
  static int in_child(std::initializer_list<std::function<bool()>> steps) {
    const pid_t child = fork();
    if (child == 0) {
      int number = 1;
      for (const auto& step : steps) {
        if (!step()) ::_exit(number);
        ++number;
      }
      ::_exit(0);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  bool enter() const { return drop_privileges(directory()) && refuse_system_calls(); }
};

TEST_F(SandboxTest, RefusesWhatOnlyAnIntruderCalls) {
  EXPECT_EQ(in_child({[] { return !are_refused(); }, [this] { return enter(); }, are_refused, are_allowed}), 0);
}

TEST_F(SandboxTest, BindsThreadsThatAreRunningAlready) {
  std::promise<void> entered;
  EXPECT_EQ(in_child({[&] {
              bool bound = false;
              if (!drop_privileges(directory())) return false;
              std::thread thread([&] {
                entered.get_future().wait();
                bound = are_refused();
              });
              const bool refused = static_cast<bool>(refuse_system_calls());
              entered.set_value();
              thread.join();
              return refused && bound;
            }}),
            0);
}

// Not even a program that root runs has again what the daemon gave up.
TEST_F(SandboxTest, LetsNobodyGainAnything) {
  constexpr const char* kHasNoMore = R"(! grep -q '^CapEff:.*ffff' /proc/self/status)";
  EXPECT_EQ(in_child({[this] { return enter(); }, [] { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1; },
                      [] { return ::system(kHasNoMore) == 0; }}),
            0);
}

}  // namespace
}  // namespace rekeyfs::tools
