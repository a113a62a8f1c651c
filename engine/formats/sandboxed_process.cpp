#include "engine/formats/sandboxed_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
extern "C" {  // glibc 2.36 does not say so itself (glibc bug 29509)
#include <sys/pidfd.h>
}

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <string_view>
#include <utility>

#include "engine/base/read.h"
#include "engine/formats/syscall_filter.h"
#include "engine/formats/threads.h"

namespace rekeyfs::formats {
namespace {

constexpr int kOutputCapacity = 1 << 20;  // bytes; an image may have thousands of snapshots to tell of
constexpr std::size_t kComplaintLength = 300;
constexpr std::string_view kMemory = "1073741824";  // bytes of address space

struct Pipe {
  Descriptor read, write;
};

// Nobody need drain it: a writer that finds it full loses what it writes, and goes on.
Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail(error_from_errno(errno, "make a pipe for a format reader"));
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// One byte is smaller than any core file, and unlike 0 it also holds where core_pattern is a pipe; but a limit that is 0
// already can only stay so.
std::string core_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0 ? "0" : "1:1";
}

std::vector<std::string> sandbox_command(const SandboxedProcess::Command& command, int filter) {
  std::vector<std::string> words{
      "/usr/bin/prlimit",
      "--core=" + core_limit(), "--as=" + std::string(kMemory), "--nofile=64", "--fsize=0", "--",
      "/usr/bin/bwrap", "--unshare-user", "--unshare-all", "--die-with-parent", "--as-pid-1",
      "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--clearenv",
      "--ro-bind", "/usr/lib", "/usr/lib", "--ro-bind-try", "/usr/lib64", "/usr/lib64",
      "--ro-bind-try", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64",
      "--ro-bind", command.program, command.program, "--remount-ro", "/", "--chdir", "/",
      "--seccomp", std::to_string(filter), "--", command.program};
  words.insert(words.end(), command.arguments.begin(), command.arguments.end());
  return words;
}

// What posix_spawn() is told: a session of its own, default signals, no descriptor but those named.
class SpawnPlan {
 public:
  SpawnPlan() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setsigdefault(&attributes_, &all);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  }
  ~SpawnPlan() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&actions_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  // Gives `sources` as 0, 1, 2 and so on, and nothing else.
  Status give(const std::vector<int>& sources) {
    const int count = static_cast<int>(sources.size());
    for (int target = 0; target < count; ++target) {
      // From a copy above all targets, so that none of them overwrites a source.
      Descriptor copy(::fcntl(sources[static_cast<std::size_t>(target)], F_DUPFD_CLOEXEC, count));
      if (!copy) return fail(error_from_errno(errno, "copy a descriptor for the format reader"));
      ::posix_spawn_file_actions_adddup2(&actions_, copy.get(), target);
      copies_.push_back(std::move(copy));
    }
    ::posix_spawn_file_actions_addclosefrom_np(&actions_, count);
    return {};
  }
  Result<pid_t> spawn(const std::vector<std::string>& words) const {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    char* environment[] = {nullptr};
    pid_t child = -1;
    if (const int error = ::posix_spawn(&child, arguments[0], &actions_, &attributes_, arguments.data(), environment))
      return fail(error_from_errno(error, "start " + words.front()));
    return child;
  }

 private:
  std::vector<Descriptor> copies_;
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

}  // namespace

Result<std::unique_ptr<SandboxedProcess>> SandboxedProcess::start(const Command& command, Clock::time_point lease) {
  std::unique_ptr<SandboxedProcess> process(new SandboxedProcess);
  SandboxedProcess& self = *process;
  Lock lock(self.mutex_);
  self.lease_ = lease;
  RK_TRY(run_thread(self.keeper_, [&self, &command] {
    Status launched = self.launch(command);
    const bool runs = launched.has_value();
    {
      Lock told(self.mutex_);
      self.launched_ = std::move(launched);
      self.changed_.notify_all();
    }
    if (runs) self.keep();
  }));
  while (!self.launched_) self.changed_.wait(self.mutex_);
  if (!*self.launched_) return fail(self.launched_->error());
  return process;
}

SandboxedProcess::~SandboxedProcess() {
  kill();
  if (keeper_.joinable()) keeper_.join();
}

Status SandboxedProcess::launch(const Command& command) {
  RK_TRY_ASSIGN(Pipe output, make_pipe());
  RK_TRY_ASSIGN(Pipe complaints, make_pipe());
  ::fcntl(output.write.get(), F_SETPIPE_SZ, kOutputCapacity);  // where refused, what is there must do
  RK_TRY_ASSIGN(const Descriptor filter, make_syscall_filter());
  const Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!nothing) return fail(error_from_errno(errno, "open /dev/null"));

  std::vector<int> given{nothing.get(), output.write.get(), complaints.write.get()};
  given.insert(given.end(), command.descriptors.begin(), command.descriptors.end());
  const int filter_arrives_as = static_cast<int>(given.size());  // bubblewrap reads and closes it
  given.push_back(filter.get());
  SpawnPlan plan;
  RK_TRY(plan.give(given));
  RK_TRY_ASSIGN(const pid_t child, plan.spawn(sandbox_command(command, filter_arrives_as)));

  process_ = Descriptor(::pidfd_open(child, 0));
  if (!process_) {
    const Error error = error_from_errno(errno, "watch the format reader");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    return fail(error);
  }
  output_ = std::move(output.read);
  complaints_ = std::move(complaints.read);
  return {};
}

void SandboxedProcess::keep() {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(lease_left());
    pollfd watched{.fd = process_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&watched, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000)));
    if (ready > 0) break;
    if (ready == 0 && lease_left() <= Clock::duration::zero()) {
      {
        Lock lock(mutex_);
        expired_ = true;
      }
      kill();
      break;
    }
  }
  siginfo_t facts{};
  while (::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &facts, WEXITED) != 0 && errno == EINTR) {
  }
  const bool exited = facts.si_code == CLD_EXITED;
  Lock lock(mutex_);
  end_ = End{.status = exited ? W_EXITCODE(facts.si_status, 0) : W_EXITCODE(0, facts.si_status), .expired = expired_};
  changed_.notify_all();
}

SandboxedProcess::Clock::duration SandboxedProcess::lease_left() const {
  Lock lock(mutex_);
  return lease_ - Clock::now();
}

void SandboxedProcess::extend_lease(Clock::time_point lease) {
  Lock lock(mutex_);
  lease_ = std::max(lease_, lease);
}

void SandboxedProcess::kill() {
  if (process_) ::pidfd_send_signal(process_.get(), SIGKILL, nullptr, 0);
}

SandboxedProcess::End SandboxedProcess::wait() {
  Lock lock(mutex_);
  while (!end_) changed_.wait(mutex_);
  return *end_;
}

std::optional<SandboxedProcess::End> SandboxedProcess::ended() const {
  Lock lock(mutex_);
  return end_;
}

std::string SandboxedProcess::take_output() { return read_to_end(output_.get()); }

std::string SandboxedProcess::take_complaint() {
  std::string text = read_to_end(complaints_.get());
  if (text.size() > kComplaintLength) text.resize(kComplaintLength);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& letter : text)
    if (letter < ' ' || letter > '~') letter = letter == '\n' ? ' ' : '?';
  return text;
}

}  // namespace rekeyfs::formats
