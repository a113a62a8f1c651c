// Notifier: tells the kernel about changes that invalidate its caches, and withdraws the hot images concerned, on its
// own thread.
//
// A notification takes kernel locks that the request being served may hold (its parent directory, its pages). A thread
// that serves requests could therefore deadlock with itself if it sent one. Here notifications are queued. A request
// that must not be answered before the kernel was told (a close, a command) waits in settle() for a bounded time: if
// all serving threads wait for each other, they continue after it. Alternatively a request leaves its answer to
// drop_pages(), and no thread waits.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/engine.h"
#include "fs/byte_range.h"
#include "fs/hot_images.h"

struct fuse_session;

namespace rekeyfs::fs {

class Notifier final : public Observer {
 public:
  Notifier(Engine& engine, HotImages& hot) : engine_(engine), hot_(hot) {}
  ~Notifier() override;
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  void start(fuse_session* session);
  // Finishes the notification in progress and drops the queued ones. Call it while requests are still served, or when
  // none can come any more. Idempotent.
  void stop() EXCLUDES(stop_mutex_, mutex_, telling_);

  void entry_removed(Ino parent, std::string_view name) override EXCLUDES(mutex_);
  void content_changed(Ino ino) override EXCLUDES(mutex_);
  void contents_changed(const std::vector<Ino>& images) override EXCLUDES(mutex_);
  // When it returns, the kernel has dropped the attributes. The kernel may wait for another request about a node that
  // is being removed; therefore this holds no lock that other requests need.
  void permissions_changed(Ino ino) override EXCLUDES(telling_);

  // Calls `then` on the notifier's thread when the kernel has written back and dropped these pages; immediately if the
  // kernel cannot be told any more.
  void drop_pages(Ino ino, const ByteRange& pages, const std::function<void()>& then) noexcept EXCLUDES(mutex_);
  // The kernel has dropped a reference to a node. If it was the last one and the node has no name, the engine is told.
  void forgotten(Ino ino) EXCLUDES(mutex_);

  // Returns when everything queued so far has reached the kernel, but after `longest` at the latest.
  void settle(std::chrono::milliseconds longest = std::chrono::seconds(1)) EXCLUDES(mutex_);

 private:
  struct Drop {
    Ino ino;
    ByteRange pages;
    std::function<void()> then;
  };
  // Sets, so that repeated notifications are queued once and the queue is bounded by the size of the store. There are
  // at most as many drops as requests in progress.
  struct Batch {
    std::vector<Drop> drops;
    std::set<std::pair<Ino, std::string>> removed;
    std::set<Ino> changed;
    std::set<Ino> forgotten;
    bool empty() const { return drops.empty() && removed.empty() && changed.empty() && forgotten.empty(); }
  };

  void run() EXCLUDES(mutex_);
  void deliver(const Batch& batch);
  bool is_known(Ino ino);

  Engine& engine_;
  HotImages& hot_;
  fuse_session* session_ = nullptr;
  std::thread thread_;
  SharedMutex telling_;  // held shared while the kernel is told about attributes
  bool ended_ GUARDED_BY(telling_) = false;
  Mutex stop_mutex_;  // taken before mutex_: two threads may call stop() at once
  Mutex mutex_;
  CondVar work_;
  CondVar delivered_;
  Batch queued_ GUARDED_BY(mutex_);
  std::uint64_t batches_taken_ GUARDED_BY(mutex_) = 0;
  std::uint64_t batches_delivered_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
