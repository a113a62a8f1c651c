#include "fs/stop_signals.h"

#include <atomic>
#include <cerrno>

namespace rekeyfs::fs {
namespace {

// The only global of this layer: a signal handler has no other way to find the semaphore.
std::atomic<sem_t*> raised_by_handler{nullptr};

void on_signal(int) {
  const int saved = errno;
  if (sem_t* raised = raised_by_handler.load()) ::sem_post(raised);
  errno = saved;
}

}  // namespace

StopSignals::StopSignals() {
  ::sem_init(&raised_, 0, 0);
  raised_by_handler.store(&raised_);
  struct sigaction action {};
  action.sa_handler = on_signal;  // without SA_RESTART, so that it interrupts the loop's sleep
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], nullptr, &before_[i]);
    // A signal ignored by nohup stays ignored.
    if (before_[i].sa_handler == SIG_DFL) ::sigaction(kSignals[i], &action, nullptr);
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &pipe_before_);
}

StopSignals::~StopSignals() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  ::sigaction(SIGPIPE, &pipe_before_, nullptr);
  raised_by_handler.store(nullptr);
  ::sem_destroy(&raised_);
}

void StopSignals::wait() {
  while (::sem_wait(&raised_) < 0 && errno == EINTR) {
  }
}

void StopSignals::release() {
  ::sem_post(&raised_);
}

StopSignals::Hold::Hold() {
  sigset_t held;
  ::sigemptyset(&held);
  for (const int signal : kSignals) ::sigaddset(&held, signal);
  ::pthread_sigmask(SIG_BLOCK, &held, &before_);
}

StopSignals::Hold::~Hold() {
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace rekeyfs::fs
