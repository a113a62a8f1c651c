// ProcessHandle: a handle of another process; it keeps referring to that process even if the process id is reused.
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
  // Whether the process has ended.
  bool ended_within(std::chrono::milliseconds time) const;
  // Its exit status, if the kernel reports it to processes other than the parent (Linux 6.15 and later).
  std::optional<int> exit_code() const;

 private:
  explicit ProcessHandle(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}
  Descriptor descriptor_;
};

}  // namespace rekeyfs::tools
