#include "engine/replication/copy_on_read.h"

#include "engine/base/log.h"

namespace rekeyfs::replication {
namespace {
constexpr std::size_t kMostQueued = 8u << 20;  // bytes
}

void CopyOnRead::start() {
  {
    Lock lock(mutex_);
    running_ = true;
  }
  thread_ = std::thread([this] { loop(); });
}

void CopyOnRead::stop() {
  {
    Lock lock(mutex_);
    running_ = false;
    queue_.clear();
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void CopyOnRead::offer(const std::shared_ptr<blocks::Layer>& layer, std::uint64_t offset, ByteView bytes) {
  {
    Lock lock(mutex_);
    if (!running_ || queued_bytes_ + bytes.size() > kMostQueued) return;
    queued_bytes_ += bytes.size();
  }
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  Lock lock(mutex_);
  queue_.push_back({layer, offset, std::move(copy)});
  changed_.notify_one();
}

void CopyOnRead::loop() {
  for (;;) {
    Kept kept;
    {
      Lock lock(mutex_);
      while (running_ && queue_.empty()) changed_.wait(mutex_);
      if (!running_) return;
      kept = std::move(queue_.front());
      queue_.pop_front();
    }
    const Status status = kept.layer->keep(kept.offset, kept.bytes);
    // Nothing is lost: the block stays "from base".
    if (!status && status.error().code != Errc::stale) log::debug("copy on read: {}", describe(status.error()));
    Lock lock(mutex_);
    queued_bytes_ -= kept.bytes.size();
  }
}

}  // namespace rekeyfs::replication
