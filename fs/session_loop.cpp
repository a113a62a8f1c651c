#include "fs/session_loop.h"

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <system_error>

#include <pthread.h>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "fs/device.h"
#include "fs/stop_signals.h"

namespace rekeyfs::fs {
namespace {

constexpr int kInterrupt = SIGUSR1;

void do_nothing(int) {}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

SessionLoop::SessionLoop(fuse_session* session) : session_(session) {
  struct sigaction action {};
  action.sa_handler = do_nothing;  // without SA_RESTART, so that it interrupts the read
  ::sigaction(kInterrupt, &action, &interrupt_before_);
}

SessionLoop::~SessionLoop() {
  ::sigaction(kInterrupt, &interrupt_before_, nullptr);
}

Status SessionLoop::run() {
  RK_TRY(start_worker());
  {
    Lock lock(mutex_);
    while (!over_) changed_.wait(mutex_);
  }
  interrupt_receivers();
  std::list<Worker> workers;
  Lock lock(mutex_);
  workers.swap(workers_);  // none is added any more
  mutex_.unlock();
  for (Worker& worker : workers) worker.thread.join();
  mutex_.lock();
  return ended_;
}

void SessionLoop::end() {
  fuse_session_exit(session_);
  Lock lock(mutex_);
  over_ = true;
  changed_.notify_all();
}

// A signal sent just before a receiver falls asleep has no effect, so it is repeated.
void SessionLoop::interrupt_receivers() {
  Lock lock(mutex_);
  while (receiving_ > 0) {
    for (Worker& worker : workers_)
      if (worker.is_receiving) ::pthread_kill(worker.thread.native_handle(), kInterrupt);
    changed_.wait_for(mutex_, std::chrono::milliseconds(10));
  }
}

Status SessionLoop::start_worker() {
  const StopSignals::Hold inherited;  // these signals are for the main thread
  return caught([&]() -> Status {
    Lock lock(mutex_);
    if (over_ || workers_.size() == kMaxThreads) return {};
    Worker& worker = workers_.emplace_back(Worker{.is_receiving = true});
    try {
      worker.thread = std::thread([this, &worker] { work(worker); });
    } catch (const std::system_error& error) {
      workers_.pop_back();
      return fail(error_from_errno(error.code().value(), "start a thread that serves requests"));
    }
    ++receiving_;
    return {};
  });
}

void SessionLoop::work(Worker& worker) {
  ::pthread_setname_np(::pthread_self(), "requests");
  std::unique_ptr<void, Free> memory;
  fuse_buf buffer{};
  for (;;) {
    const std::size_t size = receive(worker, buffer);
    if (!memory) memory.reset(buffer.mem);  // libfuse allocates it once
    if (size == 0) return;
    serve({static_cast<const std::byte*>(buffer.mem), size});
    note_receiving(worker, true);
  }
}

std::size_t SessionLoop::receive(Worker& worker, fuse_buf& buffer) {
  int got = 0;
  do {
    got = fuse_session_exited(session_) ? 0 : fuse_session_receive_buf(session_, &buffer);
  } while (got == -EINTR || got == -EAGAIN);
  note_receiving(worker, false);
  if (got > 0) {
    replace_receiver();
    return static_cast<std::size_t>(got);
  }
  Lock lock(mutex_);
  if (got < 0) ended_ = fail(error_from_errno(-got, "receive a request from the kernel"));
  fuse_session_exit(session_);
  over_ = true;
  changed_.notify_all();
  return 0;
}

void SessionLoop::note_receiving(Worker& worker, bool receiving) {
  Lock lock(mutex_);
  if (worker.is_receiving == receiving) return;
  worker.is_receiving = receiving;
  receiving ? ++receiving_ : --receiving_;
}

void SessionLoop::replace_receiver() {
  {
    Lock lock(mutex_);
    if (receiving_ > 0 || workers_.size() == kMaxThreads) return;
  }
  // Without another thread the requests are served one after the other.
  if (const Status started = start_worker(); !started) log::warn("{}", describe(started.error()));
}

void SessionLoop::serve(ByteView request) {
  RequestHead head = head_of(request);
  const Result<bool> entered = caught([&]() -> Result<bool> { return lanes_.enter(head, request); });
  if (entered && !*entered) return;
  process(request);
  if (!entered) return;  // out of memory: it was served without a place
  while (const auto next = lanes_.leave(head)) {
    if (fuse_session_exited(session_)) return;
    head = next->head;
    process(next->bytes);
  }
}

void SessionLoop::process(ByteView request) {
  Device::begin(request);
  fuse_buf buffer{};
  buffer.size = request.size();
  buffer.mem = const_cast<std::byte*>(request.data());  // libfuse only reads it
  fuse_session_process_buf(session_, &buffer);
}

}  // namespace rekeyfs::fs
