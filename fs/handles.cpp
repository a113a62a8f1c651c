#include "fs/handles.h"

#include <chrono>
#include <set>

namespace rekeyfs::fs {
namespace {
constexpr std::chrono::milliseconds kReleaseDelay{10};
}

void KeptAnswer::keep(std::string answer) {
  Lock lock(mutex_);
  answer_ = std::move(answer);
}

KeptAnswer::Piece KeptAnswer::piece(std::uint64_t offset, std::size_t most) {
  Lock lock(mutex_);
  Piece out{.text = {}, .total = answer_.size()};
  if (offset < answer_.size()) out.text = answer_.substr(offset, most);
  return out;
}

// The kernel sends a release some time after close(2) has returned. Whoever opens a finished import at once would
// stay uncached for as long as he has it open, so he waits for it a little.
void HandleTable::await_release(OpenImage& image) {
  const auto deadline = std::chrono::steady_clock::now() + kReleaseDelay;
  while (image.direct_writers > 0 && image.looks_closed.load(std::memory_order_relaxed)) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) {
      image.looks_closed.store(false, std::memory_order_relaxed);  // it was a duplicate: the next one need not wait
      return;
    }
    writer_released_.wait_for(mutex_, left);
  }
}

std::uint64_t HandleTable::add_file(Ino ino, OpenFilePtr file, Caching caching, bool writes, HotImages::Use use) {
  Lock lock(mutex_);
  std::shared_ptr<OpenImage>& kept = images_[ino];
  if (!kept) kept = std::make_shared<OpenImage>();
  const std::shared_ptr<OpenImage> image = kept;
  ++image->handles;  // before the wait: the image is not forgotten meanwhile
  await_release(*image);
  const bool direct = image->direct_writers > 0 || (caching == Caching::import && image->handles == 1);
  if (direct && writes) ++image->direct_writers;
  auto handle = std::make_unique<FileHandle>(ino, std::move(file), image, direct, writes, std::move(use));
  const auto number = reinterpret_cast<std::uint64_t>(handle.get());
  files_.emplace(number, std::move(handle));
  return number;
}

std::uint64_t HandleTable::add_directory() {
  auto handle = std::make_unique<DirectoryHandle>();
  const auto number = reinterpret_cast<std::uint64_t>(handle.get());
  Lock lock(mutex_);
  directories_.emplace(number, std::move(handle));
  return number;
}

void HandleTable::remove_file(std::uint64_t handle) {
  std::unique_ptr<FileHandle> closed;  // outlives the lock: giving the engine its file back may take a while
  Lock lock(mutex_);
  const auto found = files_.find(handle);
  closed = std::move(found->second);
  files_.erase(found);
  OpenImage& image = *closed->image_;
  if (closed->direct_ && closed->writes_ && --image.direct_writers == 0) writer_released_.notify_all();
  if (--image.handles == 0) images_.erase(closed->ino());
}

void HandleTable::remove_directory(std::uint64_t handle) {
  Lock lock(mutex_);
  directories_.erase(handle);
}

std::vector<Ino> HandleTable::open_for_writing() {
  std::set<Ino> images;
  Lock lock(mutex_);
  for (const auto& [number, handle] : files_)
    if (handle->writes_) images.insert(handle->ino());
  return {images.begin(), images.end()};
}

}  // namespace rekeyfs::fs
