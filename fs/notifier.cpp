#include "fs/notifier.h"

#include <cerrno>
#include <chrono>

#include "engine/base/exceptions.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {
namespace {
constexpr off_t kAttributesOnly = -1;  // offset value: keeps the pages
}

Notifier::~Notifier() {
  stop();
}

void Notifier::start(fuse_session* session) {
  session_ = session;
  thread_ = std::thread([this] { run(); });
}

void Notifier::stop() {
  Lock one_at_a_time(stop_mutex_);
  {
    Lock lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  {
    UniqueLock none_is_told_any_more(telling_);
    ended_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Notifier::entry_removed(Ino parent, std::string_view name) {
  {
    Lock lock(mutex_);
    queued_.removed.emplace(parent, name);
  }
  work_.notify_one();
}

void Notifier::content_changed(Ino ino) {
  {
    Lock lock(mutex_);
    queued_.changed.insert(ino);
  }
  work_.notify_one();
}

void Notifier::contents_changed(const std::vector<Ino>& images) {
  {
    Lock lock(mutex_);
    queued_.changed.insert(images.begin(), images.end());
  }
  work_.notify_one();
}

void Notifier::permissions_changed(Ino ino) {
  SharedLock told_before_the_end(telling_);
  if (!ended_) fuse_lowlevel_notify_inval_inode(session_, ino.value(), kAttributesOnly, 0);
}

void Notifier::drop_pages(Ino ino, const ByteRange& pages, const std::function<void()>& then) noexcept {
  const auto queued = caught([&]() -> Result<bool> {
    Lock lock(mutex_);
    if (!stopping_) queued_.drops.push_back({ino, pages, then});
    return !stopping_;
  });
  if (queued && *queued) {
    work_.notify_one();
  } else {
    then();
  }
}

void Notifier::forgotten(Ino ino) {
  if (!engine_.names().awaits_forget(ino)) return;
  {
    Lock lock(mutex_);
    queued_.forgotten.insert(ino);
  }
  work_.notify_one();
}

void Notifier::settle(std::chrono::milliseconds longest) {
  const auto deadline = std::chrono::steady_clock::now() + longest;
  Lock lock(mutex_);
  const std::uint64_t awaited = batches_taken_ + (queued_.empty() ? 0 : 1);
  while (batches_delivered_ < awaited && !stopping_) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) return;
    delivered_.wait_for(mutex_, left);
  }
}

void Notifier::run() {
  Lock lock(mutex_);
  while (!stopping_) {
    if (queued_.empty()) {
      work_.wait(mutex_);
      continue;
    }
    const Batch batch = std::exchange(queued_, {});
    ++batches_taken_;
    mutex_.unlock();
    deliver(batch);
    mutex_.lock();
    ++batches_delivered_;
    delivered_.notify_all();
  }
  delivered_.notify_all();
  const std::vector<Drop> left = std::exchange(queued_.drops, {});
  mutex_.unlock();
  for (const Drop& drop : left) drop.then();
  mutex_.lock();
}

// Ignores the results: ENOENT means that the kernel had nothing cached, other errors that the mount is ending.
void Notifier::deliver(const Batch& batch) {
  for (const Drop& drop : batch.drops) {
    const bool to_the_end = drop.pages.end == ByteRange::kToTheEnd;
    fuse_lowlevel_notify_inval_inode(session_, drop.ino.value(), static_cast<off_t>(drop.pages.begin),
                                     to_the_end ? 0 : static_cast<off_t>(drop.pages.end - drop.pages.begin));
    drop.then();
  }
  for (const auto& [parent, name] : batch.removed)
    fuse_lowlevel_notify_inval_entry(session_, parent.value(), name.c_str(), name.size());
  for (Ino ino : batch.changed) fuse_lowlevel_notify_inval_inode(session_, ino.value(), 0, 0);
  hot_.withdraw(batch.changed);
  for (Ino ino : batch.forgotten)
    if (!is_known(ino)) engine_.names().forget(ino);
}

// The kernel counts its references to a node and reports how many it drops. This program does not count them but asks
// the kernel whether any is left.
bool Notifier::is_known(Ino ino) {
  return fuse_lowlevel_notify_inval_inode(session_, ino.value(), kAttributesOnly, 0) != -ENOENT;
}

}  // namespace rekeyfs::fs
