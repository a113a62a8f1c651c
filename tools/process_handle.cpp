#include "tools/process_handle.h"

#include <cerrno>
#include <cstdint>
#include <string>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace rekeyfs::tools {
namespace {

// From the kernel's <linux/pidfd.h>, which is newer than the build's headers.
struct PidfdInfo {
  std::uint64_t mask = 0;
  std::uint64_t cgroup_id = 0;
  std::uint32_t ids[11] = {};
  std::int32_t exit_status = 0;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr std::uint64_t kInfoExit = 1 << 3;

// The exit status is available after the parent has reaped the process, which init does immediately.
constexpr std::chrono::milliseconds kCollected{20};

bool poll_for(int descriptor, short events, std::chrono::milliseconds time) {
  pollfd wait{descriptor, events, 0};
  return poll(&wait, 1, static_cast<int>(time.count())) > 0 && wait.revents != 0;
}

}  // namespace

Outcome<ProcessHandle> ProcessHandle::open(pid_t process) {
  Descriptor descriptor(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (!descriptor)
    return tl::unexpected<Failure>(
        error_from_errno(errno, "watch the daemon (process " + std::to_string(process) + ")"));
  return ProcessHandle(std::move(descriptor));
}

bool ProcessHandle::ended_within(std::chrono::milliseconds time) const {
  return poll_for(descriptor_.get(), POLLIN, time);
}

std::optional<int> ProcessHandle::exit_code() const {
  poll_for(descriptor_.get(), 0, kCollected);  // returns early only with POLLHUP: reaped
  PidfdInfo info;
  info.mask = kInfoExit;
  if (ioctl(descriptor_.get(), _IOWR(0xff, 11, PidfdInfo), &info) != 0 || (info.mask & kInfoExit) == 0)
    return std::nullopt;
  return WIFEXITED(info.exit_status) ? WEXITSTATUS(info.exit_status) : 128 + WTERMSIG(info.exit_status);
}

}  // namespace rekeyfs::tools
