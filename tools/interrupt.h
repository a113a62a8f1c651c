// Interrupt: lets a loop that waits end in order when Ctrl-C or SIGTERM comes.
//
// Made before other threads start, so that they inherit its signal mask and the signal reaches the waiting one.
#pragma once

#include <chrono>
#include <csignal>

namespace rekeyfs::tools {

class Interrupt {
 public:
  Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  // Lets a signal that came take its effect: it ends the program.
  ~Interrupt();
  // Sleeps; true as soon as a signal has come.
  bool came_within(std::chrono::milliseconds time);

 private:
  sigset_t set_{}, before_{};
  int signal_ = 0;
};

}  // namespace rekeyfs::tools
