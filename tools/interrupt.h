// Interrupt: lets a waiting loop end in order at Ctrl-C or SIGTERM.
//
// Construct it before starting other threads: they inherit its signal mask, so that the waiting thread gets the signal.
#pragma once

#include <chrono>
#include <csignal>

namespace rekeyfs::tools {

class Interrupt {
 public:
  Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  // If a signal came, raises it with its default action, which ends the program.
  ~Interrupt();
  // Sleeps; returns true as soon as a signal has come.
  bool came_within(std::chrono::milliseconds time);

 private:
  sigset_t set_{}, before_{};
  int signal_ = 0;
};

}  // namespace rekeyfs::tools
