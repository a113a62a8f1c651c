#include "engine/base/background.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <utility>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs {
namespace {
constexpr std::chrono::seconds kAfterException{1};
}

Status Background::start(Step step, unsigned threads) {
  step_ = std::move(step);
  {
    Lock lock(mutex_);
    running_ = true;
  }
  const Status started = caught([&]() -> Status {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
    return {};
  });
  if (started) return {};
  stop();
  return fail(started.error().code, "the thread `" + std::string(name_) + "` cannot be started: " + describe(started.error()));
}

void Background::stop() {
  {
    Lock lock(mutex_);
    running_ = false;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Background::wake() {
  Lock lock(mutex_);
  ++calls_;
  changed_.notify_all();
}

bool Background::is_running() const {
  Lock lock(mutex_);
  return running_;
}

void Background::run() {
  ::pthread_setname_np(::pthread_self(), name_);
  if (niceness_ != 0) ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), niceness_);
  for (;;) {
    std::uint64_t heard = 0;
    {
      Lock lock(mutex_);
      if (!running_) return;
      heard = calls_;
    }
    rest(take_step(), heard);
  }
}

Background::Duration Background::take_step() noexcept {
  try {
    return step_();
  } catch (const std::exception& exception) {
    log::error("{}: {}; rekeyfs tries again", name_, exception.what());
    return kAfterException;
  }
}

void Background::rest(Duration duration, std::uint64_t heard) {
  const Clock::time_point until = Clock::now() + duration;
  Lock lock(mutex_);
  while (running_ && calls_ == heard) {
    const Duration left = until - Clock::now();
    if (left <= Duration::zero()) return;
    changed_.wait_for(mutex_, left);
  }
}

}  // namespace rekeyfs
