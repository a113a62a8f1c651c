#include "engine/formats/sandboxed_process.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "engine/base/pipe.h"
#include "engine/base/read.h"
#include "engine/formats/syscall_filter.h"
#include "engine/formats/threads.h"

namespace rekeyfs::formats {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kLongestLook = 1h;  // fits into poll(2)'s timeout
constexpr int kOutputCapacity = 1 << 20;  // bytes; an image may have thousands of snapshots to report
constexpr std::size_t kComplaintLength = 300;
constexpr std::string_view kMemory = "1073741824";  // bytes of address space

// One byte is smaller than any core file and, unlike 0, also has effect if core_pattern is a pipe. A limit that is
// already 0 cannot be raised.
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
  // The pipes need not be drained: a writer that finds one full loses its output and continues.
  RK_TRY_ASSIGN(Pipe output, Pipe::create(O_NONBLOCK));
  RK_TRY_ASSIGN(Pipe complaints, Pipe::create(O_NONBLOCK));
  ::fcntl(output.write.get(), F_SETPIPE_SZ, kOutputCapacity);  // if refused, the default capacity has to suffice
  RK_TRY_ASSIGN(const Descriptor filter, make_syscall_filter());
  Program sandbox{.descriptors = {Program::kNothing, output.write.get(), complaints.write.get()}};
  sandbox.descriptors.insert(sandbox.descriptors.end(), command.descriptors.begin(), command.descriptors.end());
  const int filter_arrives_as = static_cast<int>(sandbox.descriptors.size());  // read and closed by bubblewrap
  sandbox.descriptors.push_back(filter.get());
  sandbox.command = sandbox_command(command, filter_arrives_as);
  sandbox.environment.emplace();
  sandbox.own_session = true;
  RK_TRY_ASSIGN(ChildProcess process, ChildProcess::start(sandbox));
  if (!process.watch()) return fail(Errc::too_many_files, "watch the format reader: no descriptor is left");
  process_.emplace(std::move(process));
  output_ = std::move(output.read);
  complaints_ = std::move(complaints.read);
  return {};
}

void SandboxedProcess::keep() {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(lease_left());
    if (process_->ends_within(std::clamp(left, 0ms, kLongestLook))) break;
    if (lease_left() <= Clock::duration::zero()) {
      {
        Lock lock(mutex_);
        expired_ = true;
      }
      kill();
      break;
    }
  }
  const int status = process_->wait();
  Lock lock(mutex_);
  end_ = End{.status = status, .expired = expired_};
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
  if (process_) process_->kill();
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
