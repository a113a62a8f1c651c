#include "fs/openings.h"

#include <atomic>
#include <chrono>
#include <utility>

namespace rekeyfs::fs {
namespace {
constexpr std::chrono::milliseconds kReleaseDelay{10};
}

struct Openings::Image {
  explicit Image(Ino number) : ino(number) {}

  const Ino ino;
  // Guarded by the owner's mutex.
  unsigned handles = 0;
  unsigned direct_writers = 0;
  std::atomic<bool> looks_closed{false};  // a direct writer's descriptor was closed, and nothing was written since
  std::atomic<unsigned> hiding_changes{0};

  // The range that went through the page cache while the image was open. The kernel drops older pages itself when it
  // begins a direct write.
  Mutex cache_mutex;
  ByteRange cached GUARDED_BY(cache_mutex);
  std::uint64_t noted GUARDED_BY(cache_mutex) = 0;
  unsigned cachers GUARDED_BY(cache_mutex) = 0;  // open handles that have used the page cache
};

std::unique_ptr<Openings::Opening> Openings::open(Ino ino, const Manner& manner) {
  Lock lock(mutex_);
  std::shared_ptr<Image>& kept = images_[ino];
  if (!kept) kept = std::make_shared<Image>(ino);
  const std::shared_ptr<Image> image = kept;
  auto opening = std::make_unique<Opening>(*this, image, manner);  // what needs memory comes first; its end uncounts it
  ++image->handles;  // counted before the wait, so that the image stays in images_
  if (manner.may_hide_changes) ++image->hiding_changes;
  await_release(*image);
  opening->direct_ = image->direct_writers > 0 || (manner.caching == Caching::import && image->handles == 1);
  if (opening->direct_ && manner.writes) ++image->direct_writers;
  return opening;
}

// The kernel sends a release some time after close(2) has returned. An open right after an import would bypass the
// cache for as long as the handle is open, so it waits a little for the release.
void Openings::await_release(Image& image) {
  const auto deadline = std::chrono::steady_clock::now() + kReleaseDelay;
  while (image.direct_writers > 0 && image.looks_closed.load(std::memory_order_relaxed)) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) {
      // It was a duplicated descriptor; the next open need not wait.
      image.looks_closed.store(false, std::memory_order_relaxed);
      return;
    }
    writer_released_.wait_for(mutex_, left);
  }
}

void Openings::close(const Opening& opening) {
  Image& image = *opening.image_;
  {
    Lock lock(image.cache_mutex);
    if (opening.caches_) --image.cachers;
  }
  Lock lock(mutex_);
  if (opening.manner_.may_hide_changes) --image.hiding_changes;
  if (opening.direct_ && opening.manner_.writes && --image.direct_writers == 0) writer_released_.notify_all();
  if (--image.handles == 0) images_.erase(image.ino);
}

Openings::Opening::Opening(Openings& owner, std::shared_ptr<Image> image, const Manner& manner)
    : owner_(owner), image_(std::move(image)), manner_(manner) {}

Openings::Opening::~Opening() {
  owner_.close(*this);
}

void Openings::Opening::note_written() const {
  if (direct_) image_->looks_closed.store(false, std::memory_order_relaxed);
}

void Openings::Opening::note_closed() const {
  if (direct_) image_->looks_closed.store(true, std::memory_order_relaxed);
}

void Openings::Opening::note_cached(const ByteRange& range) const {
  Lock lock(image_->cache_mutex);
  image_->cached = image_->cached.with(range);
  ++image_->noted;
  if (!std::exchange(caches_, true)) ++image_->cachers;
}

// When no handle reads through the cache any more, all pages are dropped at once, so that later writes are as fast as
// before.
std::optional<Openings::Opening::Outdated> Openings::Opening::outdated_by(const ByteRange& written) const {
  Lock lock(image_->cache_mutex);
  if (!image_->cached.meets(written)) return std::nullopt;
  return Outdated{image_->cachers == 0 ? image_->cached : written, image_->noted};
}

void Openings::Opening::note_dropped(const Outdated& outdated) const {
  Lock lock(image_->cache_mutex);
  if (image_->noted == outdated.noted && outdated.pages.covers(image_->cached)) image_->cached = {};
}

bool Openings::Opening::may_hide_changes() const {
  return image_->hiding_changes.load() > 0;
}

}  // namespace rekeyfs::fs
