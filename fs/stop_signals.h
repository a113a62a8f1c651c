// StopSignals: makes SIGTERM, SIGINT and SIGHUP events to wait for. StopSignals::Hold: blocks them for a moment.
//
// libfuse's own handlers only mark the session, and the sleeping loop notices that only if its own thread gets the
// signal; the engine has other threads that might get it. At most one instance at a time, because a handler gets
// nothing but the signal number.
#pragma once

#include <array>
#include <csignal>

#include <semaphore.h>

namespace rekeyfs::fs {

class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // restores the previous handlers
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  void wait();  // waits for a signal or release()
  void release();

  // While it exists, this thread and the programs that it starts block these signals. A Ctrl-C on the terminal goes to
  // these programs, too.
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
