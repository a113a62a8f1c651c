// Notifier: tells the kernel what its caches cannot see coming, and withdraws hot images that are concerned, on a
// thread of its own.
//
// A notification takes locks in the kernel that the request being served may hold (its parent directory, its pages),
// so one sent by a thread that serves requests can wait for itself. Here they are queued, and a request that must not
// be answered before the kernel knows (a close, a command) waits in settle() for a bounded time: were all serving
// threads to wait for one another, they would go on a second later instead of never. Or it leaves its answer to
// drop_pages(), and no thread waits.
#pragma once

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
  // Finishes the notification under way and drops the others. Call it while requests are still being served, or none
  // can come any more; may be called twice.
  void stop() EXCLUDES(stop_mutex_, mutex_, telling_);

  void entry_removed(Ino parent, std::string_view name) override EXCLUDES(mutex_);
  void content_changed(Ino ino) override EXCLUDES(mutex_);
  // The kernel has forgotten the attributes when it returns. It may wait for a request about a node that is going, which
  // the caller does not serve; so nothing that other requests need is locked meanwhile.
  void permissions_changed(Ino ino) override EXCLUDES(telling_);

  // Calls `then` on the notifier's thread when the kernel has written back and dropped these pages; at once if it cannot be
  // told any more.
  void drop_pages(Ino ino, const ByteRange& pages, const std::function<void()>& then) noexcept EXCLUDES(mutex_);
  // The kernel has taken back something that it knew of a node. If nothing is left and the node is removed, the engine
  // is told.
  void forgotten(Ino ino) EXCLUDES(mutex_);

  // Returns when everything queued before has reached the kernel, or after a second.
  void settle() EXCLUDES(mutex_);

 private:
  struct Drop {
    Ino ino;
    ByteRange pages;
    std::function<void()> then;
  };
  // Sets, so that what is said often waits once and the queue stays as small as the store. Of drops there are as many as
  // requests are under way.
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
  SharedMutex telling_;  // shared while the kernel is told of attributes
  bool ended_ GUARDED_BY(telling_) = false;
  Mutex stop_mutex_;  // taken before mutex_: two may stop it at once
  Mutex mutex_;
  CondVar work_;
  CondVar delivered_;
  Batch queued_ GUARDED_BY(mutex_);
  std::uint64_t batches_taken_ GUARDED_BY(mutex_) = 0;
  std::uint64_t batches_delivered_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace rekeyfs::fs
