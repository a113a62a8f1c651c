// Program: runs another program and waits for it, for calls that would otherwise wait for an answer of this process.
//
// A thread that waits for an answer of its own process cannot be killed, and would keep the store locked. When this
// process is killed instead, the kernel ends the wait of its children. A child inherits neither descriptors nor memory
// with keys.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace rekeyfs::fs {

constexpr std::chrono::milliseconds kNoLimit{-1};

// Whether the program succeeded. It is killed after `at_most`. Its output is discarded: a busy mount is not worth a
// message on the terminal.
bool run(const std::vector<std::string>& command, std::chrono::milliseconds at_most = kNoLimit);

}  // namespace rekeyfs::fs
