#include "fs/program.h"

#include "engine/base/child_process.h"

namespace rekeyfs::fs {

bool run(const std::vector<std::string>& command, std::chrono::milliseconds at_most) {
  auto child = ChildProcess::start({.command = command});
  if (!child) return false;
  if (at_most != kNoLimit && !child->ends_within(at_most)) child->kill();
  return has_succeeded(child->wait());
}

}  // namespace rekeyfs::fs
