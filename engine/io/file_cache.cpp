#include "engine/io/file_cache.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include <sys/resource.h>

#include "engine/base/exceptions.h"
#include "engine/base/shortage.h"

namespace rekeyfs::io {
namespace {

// Descriptors for the rest of a daemon: LMDB, FUSE and its threads, the log, pipes and sockets of format readers, and a
// directory that each request may open on the way to a file.
constexpr std::uint64_t kMinKept = 96;
constexpr std::uint64_t kKeptShare = 4;  // or this fraction of the limit if that is more
constexpr std::uint64_t kMinFiles = 8;
constexpr std::uint64_t kMaxFiles = 16384;  // the kernel keeps about 1 KiB for each
constexpr int kMaxClosed = 4;  // number of files to close when the process's or the system's limit refuses a descriptor

}  // namespace

// Owns one of the descriptors that the cache may use.
class FileCache::Place {
 public:
  explicit Place(FileCache& cache) : cache_(&cache) {}
  Place(Place&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)) {}
  Place& operator=(Place&& other) noexcept {
    std::swap(cache_, other.cache_);
    return *this;
  }
  ~Place() {
    if (!cache_) return;
    Lock lock(cache_->mutex_);
    --cache_->places_;
    cache_->changed_.notify_all();
  }

 private:
  FileCache* cache_;
};

struct FileCache::Opened {
  Place place;  // released after the file is closed
  std::unique_ptr<File> file;
};

class FileCache::CachedFile final : public File {
 public:
  CachedFile(FileCache& cache, std::string path, OpenMode mode, Opened opened)
      : cache_(cache), path_(std::move(path)), mode_(mode == OpenMode::read ? OpenMode::read : OpenMode::write), opened_(std::move(opened)) {
    Lock lock(cache_.mutex_);
    cache_.synced_.splice(cache_.synced_.begin(), self_);
    cache_.changed_.notify_all();
  }
  ~CachedFile() override { cache_.forget(*this); }

  Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override {
    return call(false, [&](File& file) { return file.read(offset, out); });
  }
  Status write(std::uint64_t offset, ByteView bytes) override {
    return call(true, [&](File& file) { return file.write(offset, bytes); });
  }
  Status sync() override { return cache_.sync(*this); }
  Status punch(std::uint64_t offset, std::uint64_t size) override {
    return call(true, [&](File& file) { return file.punch(offset, size); });
  }
  Status reserve(std::uint64_t offset, std::uint64_t size) override {
    return call(true, [&](File& file) { return file.reserve(offset, size); });
  }
  Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) override {
    return call(false, [&](File& file) { return file.reserved(offset, size); });
  }
  Result<std::uint64_t> size() override {
    return call(false, [](File& file) { return file.size(); });
  }

  // `writes`: the file may have unsynced changes afterwards, even if the call fails.
  template <typename Operation>
  auto call(bool writes, Operation operation) -> decltype(operation(std::declval<File&>())) {
    RK_TRY(cache_.begin_call(*this));
    const Call under_way{cache_, *this, writes};
    return operation(*opened_->file);
  }

 private:
  friend class FileCache;
  struct Call {
    FileCache& cache;
    CachedFile& file;
    const bool writes;
    ~Call() { cache.end_call(file, writes); }
  };

  FileCache& cache_;
  const std::string path_;
  const OpenMode mode_;  // for reopening
  // All members below are guarded by the cache's mutex_; opened_ does not change during a call.
  std::optional<Opened> opened_;
  int calls_ = 0;
  bool unsynced_ = false;
  std::uint64_t last_write_ = 0;
  Files self_{this};  // its list node while the file is closed
  const Files::iterator node_ = self_.begin();
};

FileCache::FileCache(std::unique_ptr<Storage> disk, std::size_t most) : disk_(std::move(disk)), most_(most) {}
FileCache::~FileCache() = default;

std::size_t FileCache::most_for_limit(std::uint64_t descriptors) {
  const std::uint64_t kept = std::max(kMinKept, descriptors / kKeptShare);
  return std::clamp(descriptors - std::min(descriptors, kept), kMinFiles, kMaxFiles);
}

std::size_t FileCache::most_for_process() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? most_for_limit(limit.rlim_cur) : kMinFiles;
}

Result<std::unique_ptr<File>> FileCache::open(std::string_view path, OpenMode mode) {
  RK_TRY_ASSIGN(Opened opened, open_within_bound(std::string(path), mode));
  return std::make_unique<CachedFile>(*this, std::string(path), mode, std::move(opened));
}

Result<FileCache::Opened> FileCache::open_within_bound(const std::string& path, OpenMode mode) {
  RK_TRY_ASSIGN(Place place, take_place());
  for (int more = kMaxClosed;; --more) {
    auto file = disk_->open(path, mode);
    if (file) return Opened{std::move(place), std::move(*file)};
    if (file.error().code != Errc::too_many_files || more == 0) return fail(file.error());
    RK_TRY_ASSIGN(const bool closed, close_one());
    if (!closed) return fail(file.error());
  }
}

Result<FileCache::Place> FileCache::take_place() {
  for (;;) {
    {
      Lock lock(mutex_);
      if (places_ < most_) {
        ++places_;
        return Place(*this);
      }
    }
    RK_TRY_ASSIGN(const bool closed, close_one());
    if (closed) continue;
    Lock lock(mutex_);
    if (places_ >= most_ && !has_idle(synced_) && !has_idle(unsynced_)) changed_.wait(mutex_);
  }
}

Result<bool> FileCache::close_one() {
  std::optional<Opened> closing;  // destroyed after the lock is released
  {
    Lock lock(mutex_);
    for (;;) {
      closing = take_oldest();
      if (closing) return true;
      if (!syncing_) break;
      changed_.wait(mutex_);
    }
    if (!has_idle(unsynced_)) return false;
    syncing_ = true;
  }
  RK_TRY(sync_to_close());
  return true;
}

bool FileCache::has_idle(const Files& files) {
  return std::any_of(files.begin(), files.end(), [](const CachedFile* file) { return file->calls_ == 0; });
}

std::optional<FileCache::Opened> FileCache::take_oldest() {
  const auto oldest = std::find_if(synced_.rbegin(), synced_.rend(), [](const CachedFile* file) { return file->calls_ == 0; });
  if (oldest == synced_.rend()) return std::nullopt;
  CachedFile& file = **oldest;
  file.self_.splice(file.self_.begin(), synced_, file.node_);
  return std::exchange(file.opened_, std::nullopt);
}

Status FileCache::sync_to_close() {
  std::uint64_t covered = 0;
  {
    Lock lock(mutex_);
    covered = writes_;
  }
  Status status = caught([&] { return disk_->sync_all(); });
  Lock lock(mutex_);
  syncing_ = false;
  changed_.notify_all();
  if (!status && is_shortage(status.error().code)) return status;
  if (!status) {
    failure_ = std::move(status).error();
    covered = writes_;
  }
  all_synced(covered);
  return {};
}

Status FileCache::begin_call(CachedFile& file) {
  {
    Lock lock(mutex_);
    if (file.opened_) {
      ++file.calls_;
      used(file);
      return {};
    }
  }
  // Two calls may both reopen the file; the second descriptor is closed after the lock is released.
  RK_TRY_ASSIGN(Opened opened, open_again(file));
  Lock lock(mutex_);
  if (!file.opened_) {
    file.opened_.emplace(std::move(opened));
    synced_.splice(synced_.begin(), file.self_);
  }
  ++file.calls_;
  return {};
}

Result<FileCache::Opened> FileCache::open_again(const CachedFile& file) {
  auto opened = open_within_bound(file.path_, file.mode_);
  if (!opened && opened.error().code == Errc::not_found)
    return fail(Errc::corrupt, "`" + file.path_ + "` in the store was removed while it was in use");
  return opened;
}

void FileCache::end_call(CachedFile& file, bool wrote) {
  Lock lock(mutex_);
  if (wrote && !failure_) {
    file.last_write_ = ++writes_;
    if (!std::exchange(file.unsynced_, true)) unsynced_.splice(unsynced_.begin(), synced_, file.node_);
  }
  if (--file.calls_ == 0) changed_.notify_all();
}

void FileCache::used(CachedFile& file) {
  Files& files = file.unsynced_ ? unsynced_ : synced_;
  files.splice(files.begin(), files, file.node_);
}

Status FileCache::sync(CachedFile& file) {
  std::uint64_t covered = 0;
  {
    Lock lock(mutex_);
    if (failure_) return fail(*failure_);
    if (!file.opened_) return {};  // synced before it was closed
    covered = writes_;
  }
  RK_TRY(file.call(false, [](File& open) { return open.sync(); }));
  Lock lock(mutex_);
  if (file.unsynced_ && file.last_write_ <= covered) synced(file, synced_.begin());
  return {};
}

Status FileCache::sync_all() {
  std::uint64_t covered = 0;
  {
    Lock lock(mutex_);
    if (failure_) return fail(*failure_);
    covered = writes_;
  }
  RK_TRY(disk_->sync_all());
  Lock lock(mutex_);
  all_synced(covered);
  return {};
}

void FileCache::synced(CachedFile& file, Files::const_iterator before) {
  file.unsynced_ = false;
  synced_.splice(before, unsynced_, file.node_);
  changed_.notify_all();
}

void FileCache::all_synced(std::uint64_t covered) {
  const auto before = synced_.cbegin();  // keeps their order
  for (auto next = unsynced_.begin(); next != unsynced_.end();) {
    CachedFile& file = **next++;
    if (file.last_write_ <= covered) synced(file, before);
  }
}

void FileCache::forget(CachedFile& file) {
  std::optional<Opened> closing;  // destroyed after the lock is released
  Lock lock(mutex_);
  if (!file.opened_) return;
  file.self_.splice(file.self_.begin(), file.unsynced_ ? unsynced_ : synced_, file.node_);
  closing = std::exchange(file.opened_, std::nullopt);
}

std::size_t FileCache::open_files() const {
  Lock lock(mutex_);
  return places_;
}

}  // namespace rekeyfs::io
