// Program: another program, run and waited for; for what would otherwise wait for an answer of this very process.
//
// A thread that waits for an answer of its own process cannot be killed, and would keep the store. When this process is
// killed, the kernel ends the wait of the others. None of them inherits a descriptor, or memory with keys.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace rekeyfs::fs {

constexpr std::chrono::milliseconds kNoLimit{-1};

// Whether the program ended well; one that takes longer than `at_most` is killed. Its messages go nowhere: that a mount
// is in use is no news to a terminal.
bool run(const std::vector<std::string>& command, std::chrono::milliseconds at_most = kNoLimit);

}  // namespace rekeyfs::fs
