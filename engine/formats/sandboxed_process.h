// SandboxedProcess: a program run where it can reach nothing but the system's libraries and the descriptors it is
// given: bubblewrap with namespaces of its own and no network, /proc, /dev, /etc or writable file, an empty
// environment, no capability, a short list of system calls (syscall_filter.h), and a bound on its memory. For
// FormatReader and probe_disk(). Thread-safe.
//
// It lives on a lease: it is killed when the lease runs out, when kill() is called, and with this process.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/child_process.h"
#include "engine/base/descriptor.h"
#include "engine/base/mutex.h"
#include "engine/base/result.h"

namespace rekeyfs::formats {

class SandboxedProcess {
 public:
  using Clock = std::chrono::steady_clock;
  struct Command {
    std::string program;                 // absolute path
    std::vector<std::string> arguments;  // without the program's name
    std::vector<int> descriptors;        // arrive as kFirstDescriptor and following; no other does, but 0, 1 and 2
  };
  struct End {
    int status;    // as of waitpid(2)
    bool expired;  // by the end of its lease
  };
  static constexpr int kFirstDescriptor = 3;

  static Result<std::unique_ptr<SandboxedProcess>> start(const Command& command, Clock::time_point lease);
  ~SandboxedProcess();  // killed and reaped
  SandboxedProcess(const SandboxedProcess&) = delete;
  SandboxedProcess& operator=(const SandboxedProcess&) = delete;

  void extend_lease(Clock::time_point lease) EXCLUDES(mutex_);  // an earlier time than before changes nothing
  void kill();                                                  // does not wait
  End wait() EXCLUDES(mutex_);                                  // until it has ended
  std::optional<End> ended() const EXCLUDES(mutex_);
  // What it has written so far and nobody has taken yet. More than a pipe holds is lost.
  std::string take_output();
  // As one line of printable characters, bounded, fit for a message.
  std::string take_complaint();

 private:
  SandboxedProcess() = default;
  Status launch(const Command& command);
  void keep() EXCLUDES(mutex_);
  Clock::duration lease_left() const EXCLUDES(mutex_);

  // Starts the process, waits for its end and reaps it. The process dies with this thread, not only with the daemon:
  // the signal on a parent's death is sent when the thread that started it ends.
  std::thread keeper_;
  Descriptor output_, complaints_;
  std::optional<ChildProcess> process_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::optional<Status> launched_ GUARDED_BY(mutex_);
  Clock::time_point lease_ GUARDED_BY(mutex_);
  bool expired_ GUARDED_BY(mutex_) = false;
  std::optional<End> end_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::formats
