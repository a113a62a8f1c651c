// StopSignals: SIGTERM, SIGINT and SIGHUP as something to wait for. Hold: keeps them back for a moment.
//
// libfuse's own handlers only mark the session, which the sleeping loop notices only if the signal hits its thread; the
// engine has threads that would take it. One instance at a time: a handler is told nothing but the signal's number.
#pragma once

#include <array>
#include <csignal>

#include <semaphore.h>

namespace rekeyfs::fs {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // puts back what was there
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void wait();  // for a signal or release()
  void release();

  // While it lives, they wait: for this thread, and for the programs it starts meanwhile, which a terminal's Ctrl-C
  // is sent to as well.
  class Hold {
   public:
    Hold();
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    sigset_t before_;
  };

 private:
  static constexpr std::array kSignals{SIGTERM, SIGINT, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_{};
  struct sigaction pipe_before_ {};
  sem_t raised_;
};

}  // namespace rekeyfs::fs
