#include "tools/interrupt.h"

namespace rekeyfs::tools {

Interrupt::Interrupt() {
  sigemptyset(&set_);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, signal);
  pthread_sigmask(SIG_BLOCK, &set_, &before_);
}

Interrupt::~Interrupt() {
  if (signal_ != 0) raise(signal_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

bool Interrupt::came_within(std::chrono::milliseconds time) {
  timespec wait{time.count() / 1000, time.count() % 1000 * 1'000'000};
  int signal = sigtimedwait(&set_, nullptr, &wait);
  if (signal > 0) signal_ = signal;
  return signal > 0;
}

}  // namespace rekeyfs::tools
