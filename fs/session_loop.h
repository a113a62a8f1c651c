// SessionLoop: the threads that receive the kernel's requests and serve them, from the first one to the session's end.
//
// There is always a thread that receives: when the last one got a request, another is started, up to kMaxThreads.
// Requests that may wait go through RequestLanes, which leave kPromptThreads for all others.
#pragma once

#include <csignal>
#include <list>
#include <thread>

#include "engine/base/bytes.h"
#include "engine/base/mutex.h"
#include "engine/base/result.h"
#include "fs/fuse_api.h"
#include "fs/request_lanes.h"

namespace rekeyfs::fs {

class SessionLoop {
 public:
  // At most one instance at a time, because it uses a signal to interrupt its threads.
  explicit SessionLoop(fuse_session* session);
  ~SessionLoop();
  SessionLoop(const SessionLoop&) = delete;
  SessionLoop& operator=(const SessionLoop&) = delete;

  // Returns when the session has ended and all requests in progress are served. Requests that wait for a place are
  // dropped: the kernel fails them.
  Status run() EXCLUDES(mutex_);
  void end() EXCLUDES(mutex_);  // lets run() return although the session has not ended

 private:
  static constexpr std::size_t kPromptThreads = 4;
  static constexpr std::size_t kMaxThreads =
      RequestLanes::kContentPlaces.all + RequestLanes::kCommandPlaces.all + kPromptThreads;

  struct Worker {
    bool is_receiving = false;
    std::thread thread{};
  };
  Status start_worker() EXCLUDES(mutex_);
  void work(Worker& worker);
  // The size of the request; 0 at the end of the session.
  std::size_t receive(Worker& worker, fuse_buf& buffer) EXCLUDES(mutex_);
  void note_receiving(Worker& worker, bool receiving) EXCLUDES(mutex_);
  void replace_receiver() EXCLUDES(mutex_);
  void serve(ByteView request);
  void process(ByteView request);
  void interrupt_receivers() EXCLUDES(mutex_);

  fuse_session* const session_;
  RequestLanes lanes_;
  struct sigaction interrupt_before_ {};
  Mutex mutex_;
  CondVar changed_;
  std::list<Worker> workers_ GUARDED_BY(mutex_);
  std::size_t receiving_ GUARDED_BY(mutex_) = 0;  // number of workers
  bool over_ GUARDED_BY(mutex_) = false;
  Status ended_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::fs
