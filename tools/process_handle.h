// ProcessHandle: another process, held so that its number cannot come to mean a different one.
#pragma once

#include <chrono>
#include <optional>

#include <sys/types.h>

#include "engine/base/descriptor.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

class ProcessHandle {
 public:
  static Outcome<ProcessHandle> open(pid_t process);
  // True when the process has ended.
  bool ended_within(std::chrono::milliseconds time) const;
  // What it ended with, where the kernel tells a process that is not its parent (Linux 6.15 and later).
  std::optional<int> exit_code() const;

 private:
  explicit ProcessHandle(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}
  Descriptor descriptor_;
};

}  // namespace rekeyfs::tools
