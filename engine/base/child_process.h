// ChildProcess: another program, or a part of this one, that runs in a process of its own. The one place that starts
// processes; only the daemon, which outlives the command that starts it, forks by itself (tools/daemon.cpp).
//
// A child has no descriptor that it was not given. One owner; while another thread waits, any may call kill() if watch()
// holds a descriptor.
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
  std::vector<std::string> command = {};  // its first word is a path, or a name to look for in PATH
  // Arrive as 0, 1, 2 and so on; no other does. kNothing, and what is missing of the first three, is /dev/null.
  std::vector<int> descriptors = {};
  // NAME=VALUE each; without, the environment of this process.
  std::optional<std::vector<std::string>> environment = {};
  // A session of its own, with no signal blocked or ignored. Without, signals that this process blocks do not end it.
  bool own_session = false;

  static constexpr int kNothing = -1;
};

class ChildProcess {
 public:
  static Result<ChildProcess> start(const Program& program);
  // Runs `work` in a copy of the calling thread, which ends with what it returns and dies with this thread. `out` arrives
  // as the argument; of the others 0, 1 and 2 do.
  static Result<ChildProcess> fork(const std::function<int(int out)>& work, const Descriptor& out);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ~ChildProcess();  // killed and reaped, if nobody has

  // Whether it ends within that time. False at once if this process had no descriptor left to watch it by.
  bool ends_within(std::chrono::milliseconds limit) const;
  void kill() const;  // does not wait
  int wait();         // until it has ended; its status as of waitpid(2)
  // Kills it and does not wait: one that hangs in the kernel would take the caller with it.
  void abandon();

  // Readable once it has ended; none if there was no descriptor left.
  const Descriptor& watch() const { return watch_; }

 private:
  explicit ChildProcess(pid_t process);
  pid_t process_;     // 0: waited for, abandoned or moved
  Descriptor watch_;  // a pidfd, which never comes to mean another process
};

bool has_succeeded(int status);  // as of waitpid(2)

}  // namespace rekeyfs
