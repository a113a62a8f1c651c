#include "fs/notifier.h"

#include <chrono>

#include "fs/fuse_api.h"

namespace rekeyfs::fs {
namespace {
constexpr std::chrono::seconds kLongestWait{1};
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

void Notifier::permissions_changed(Ino ino) {
  {
    Lock lock(mutex_);
    queued_.changed_attributes.insert(ino);
  }
  work_.notify_one();
}

void Notifier::settle() {
  const auto deadline = std::chrono::steady_clock::now() + kLongestWait;
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
}

// Answers are of no use: ENOENT means that the kernel held nothing of it, the others that the mount is going away.
void Notifier::deliver(const Batch& batch) {
  for (const auto& [parent, name] : batch.removed)
    fuse_lowlevel_notify_inval_entry(session_, parent.value(), name.c_str(), name.size());
  for (Ino ino : batch.changed_attributes) fuse_lowlevel_notify_inval_inode(session_, ino.value(), -1, 0);
  for (Ino ino : batch.changed) fuse_lowlevel_notify_inval_inode(session_, ino.value(), 0, 0);
  hot_.withdraw(batch.changed);
}

}  // namespace rekeyfs::fs
