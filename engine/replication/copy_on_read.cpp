#include "engine/replication/copy_on_read.h"

#include "engine/base/log.h"

namespace rekeyfs::replication {
namespace {
constexpr std::size_t kMaxQueued = 8u << 20;  // bytes
}

Status CopyOnRead::start() {
  return background_.start([this] { return step(); });
}

void CopyOnRead::stop() {
  background_.stop();
  Lock lock(mutex_);
  queue_.clear();
  queued_bytes_ = 0;
}

bool CopyOnRead::has_room_for(std::size_t bytes) const {
  return background_.is_running() && queued_bytes_ + bytes <= kMaxQueued;
}

bool CopyOnRead::is_idle() const {
  Lock lock(mutex_);
  return queue_.empty();
}

void CopyOnRead::offer(const std::vector<blocks::Taken>& taken, std::uint64_t offset, ByteView bytes) {
  for (const blocks::Taken& part : taken) offer(part.layer, part.offset, bytes.subspan(part.offset - offset, part.size));
}

void CopyOnRead::offer(const std::shared_ptr<blocks::Layer>& layer, std::uint64_t offset, ByteView bytes) {
  {
    Lock lock(mutex_);
    if (!has_room_for(bytes.size())) return;
  }
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  {
    Lock lock(mutex_);
    if (!has_room_for(bytes.size())) return;
    queue_.push_back({layer, offset, std::move(copy)});
    queued_bytes_ += bytes.size();
  }
  background_.wake();
}

Background::Duration CopyOnRead::step() {
  Kept kept;
  {
    Lock lock(mutex_);
    if (queue_.empty()) return Background::kUntilWoken;
    kept = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= kept.bytes.size();
  }
  const Status status = kept.layer->keep(kept.offset, kept.bytes);
  // Nothing is lost: the block stays in state "base".
  if (!status && status.error().code != Errc::stale) log::debug("copy on read: {}", describe(status.error()));
  return Background::Duration::zero();
}

}  // namespace rekeyfs::replication
