// SandboxedProcess: a program in a sandbox in which it can access only the system's libraries and the descriptors
// passed to it. bubblewrap gives it its own namespaces and no network, /proc, /dev, /etc or writable file, an empty
// environment, no capabilities, a short list of system calls (syscall_filter.h) and a memory limit. For FormatReader
// and probe_disk(). Thread-safe.
//
// The process has a lease: it is killed when the lease expires, when kill() is called, and when this process ends.
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
    // Passed as kFirstDescriptor and following; besides these only 0, 1 and 2 are open.
    std::vector<int> descriptors;
  };
  struct End {
    int status;    // as from waitpid(2)
    bool expired;  // killed because its lease expired
  };
  static constexpr int kFirstDescriptor = 3;

  static Result<std::unique_ptr<SandboxedProcess>> start(const Command& command, Clock::time_point lease);
  ~SandboxedProcess();  // kills and reaps the process
  SandboxedProcess(const SandboxedProcess&) = delete;
  SandboxedProcess& operator=(const SandboxedProcess&) = delete;

  void extend_lease(Clock::time_point lease) EXCLUDES(mutex_);  // no-op if the current lease is longer
  void kill();                                                  // does not wait
  End wait() EXCLUDES(mutex_);                                  // waits until the process has ended
  std::optional<End> ended() const EXCLUDES(mutex_);
  // Output of the process not taken yet. Output that exceeds the capacity of a pipe is lost.
  std::string take_output();
  // The same as one bounded line of printable characters, for a message.
  std::string take_complaint();

 private:
  SandboxedProcess() = default;
  Status launch(const Command& command);
  void keep() EXCLUDES(mutex_);
  Clock::duration lease_left() const EXCLUDES(mutex_);

  // Starts the process, waits for its end and reaps it. The process dies with this thread, not only with the daemon:
  // the kernel sends the parent-death signal when the starting thread ends.
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
