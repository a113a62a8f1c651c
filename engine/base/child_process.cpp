#include "engine/base/child_process.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {  // glibc 2.36 lacks this linkage specification (glibc bug 29509)
#include <sys/pidfd.h>
}

#include "engine/base/exceptions.h"

namespace rekeyfs {
namespace {

using std::chrono::milliseconds;

// The file actions and attributes for posix_spawn().
class SpawnPlan {
 public:
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
  }
  ~SpawnPlan() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&actions_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  void start_session() {
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  }

  Status give(std::vector<int> sources) {
    sources.resize(std::max<std::size_t>(sources.size(), 3), Program::kNothing);
    const int count = static_cast<int>(sources.size());
    for (int target = 0; target < count; ++target) {
      int source = sources[static_cast<std::size_t>(target)];
      if (source == Program::kNothing) {
        ::posix_spawn_file_actions_addopen(&actions_, target, "/dev/null", O_RDWR, 0);
        continue;
      }
      if (source < count && source != target) {  // another target may overwrite it before it is copied
        Descriptor copy(::fcntl(source, F_DUPFD_CLOEXEC, count));
        if (!copy) return fail(error_from_errno(errno, "copy a descriptor for another program"));
        source = copy.get();
        copies_.push_back(std::move(copy));
      }
      ::posix_spawn_file_actions_adddup2(&actions_, source, target);
    }
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, count);
    return {};
  }

  Result<pid_t> spawn(const std::vector<std::string>& command, char* const* environment) const {
    pid_t child = 0;
    const int error = ::posix_spawnp(&child, command.front().c_str(), &actions_, &attributes_, pointers_to(command).data(), environment);
    if (error != 0) return fail(error_from_errno(error, "start " + command.front()));
    return child;
  }

  static std::vector<char*> pointers_to(const std::vector<std::string>& words) {
    std::vector<char*> pointers;
    for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
    pointers.push_back(nullptr);
    return pointers;
  }

 private:
  std::vector<Descriptor> copies_;
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

[[noreturn]] void run_and_exit(const std::function<int(int out)>& work, int out) {
  constexpr int kOut = 3;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (out != kOut) ::dup2(out, kOut);
  ::close_range(kOut + 1, ~0u, 0);  // including the store's lock, which must not outlive the parent in this child
  ::_exit(caught([&]() -> Result<int> { return work(kOut); }).value_or(1));
}

}  // namespace

Result<ChildProcess> ChildProcess::start(const Program& program) {
  SpawnPlan plan;
  if (program.own_session) plan.start_session();
  RK_TRY(plan.give(program.descriptors));
  std::vector<char*> environment;
  if (program.environment) environment = SpawnPlan::pointers_to(*program.environment);
  RK_TRY_ASSIGN(const pid_t child, plan.spawn(program.command, program.environment ? environment.data() : environ));
  return ChildProcess(child);
}

Result<ChildProcess> ChildProcess::fork(const std::function<int(int out)>& work, const Descriptor& out) {
  const pid_t child = ::fork();
  if (child < 0) return fail(error_from_errno(errno, "fork"));
  if (child == 0) run_and_exit(work, out.get());
  return ChildProcess(child);
}

ChildProcess::ChildProcess(pid_t process) : process_(process), watch_(::pidfd_open(process, 0)) {}
ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : process_(std::exchange(other.process_, 0)), watch_(std::move(other.watch_)) {}

ChildProcess::~ChildProcess() {
  if (process_ == 0) return;
  kill();
  wait();
}

bool ChildProcess::ends_within(milliseconds limit) const {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd ended{.fd = watch_.get(), .events = POLLIN, .revents = 0};
    const int ready = watch_ && left.count() >= 0 ? ::poll(&ended, 1, static_cast<int>(left.count())) : 0;
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

void ChildProcess::kill() const {
  if (watch_)
    ::pidfd_send_signal(watch_.get(), SIGKILL, nullptr, 0);
  else if (process_ != 0)
    ::kill(process_, SIGKILL);
}

int ChildProcess::wait() {
  int status = 0;
  while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = 0;
  return status;
}

void ChildProcess::abandon() {
  kill();
  ::waitpid(process_, nullptr, WNOHANG);
  process_ = 0;
}

bool has_succeeded(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

}  // namespace rekeyfs
