// ChildProcess: a child process that runs another program or a function of this one. The only place that starts
// processes, except the daemon, which outlives the command that starts it and forks by itself (tools/daemon.cpp).
//
// A child inherits only the descriptors that are passed to it. One owner; while another thread waits, any thread may
// call kill() if watch() holds a descriptor.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs {

struct Program {
  std::vector<std::string> command = {};  // the first word is a path, or a name to search for in PATH
  // Passed as descriptors 0, 1, 2 and so on; all others are closed. kNothing, or a missing one of the first three, is
  // /dev/null.
  std::vector<int> descriptors = {};
  // NAME=VALUE each; nullopt: the environment of this process.
  std::optional<std::vector<std::string>> environment = {};
  // Starts a new session with no signal blocked or ignored. Otherwise the child keeps the signals blocked that this
  // process blocks.
  bool own_session = false;

  static constexpr int kNothing = -1;
};

class ChildProcess {
 public:
  static Result<ChildProcess> start(const Program& program);
  // Runs `work` in a copy of the calling thread. The child exits with the result of `work`, and dies with this thread.
  // `out` is passed as the argument; of all other descriptors only 0, 1 and 2 stay open.
  static Result<ChildProcess> fork(const std::function<int(int out)>& work, const Descriptor& out);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ~ChildProcess();  // kills and reaps the process unless that was done

  // Whether the process ends within that time. False immediately if no descriptor was available to watch it.
  bool ends_within(std::chrono::milliseconds limit) const;
  void kill() const;  // does not wait
  int wait();         // waits for its end; returns the status as waitpid(2) does
  // Kills the process without waiting, because a process that hangs in the kernel would block the caller.
  void abandon();

  // Readable once the process has ended; invalid if no descriptor was available.
  const Descriptor& watch() const { return watch_; }

 private:
  explicit ChildProcess(pid_t process);
  pid_t process_;     // 0: waited for, abandoned or moved from
  Descriptor watch_;  // a pidfd, which never refers to another process
};

bool has_succeeded(int status);  // status as from waitpid(2)

}  // namespace rekeyfs
