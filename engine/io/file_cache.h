// FileCache: a storage decorator whose files share a bounded number of descriptors.
//
// A File that it returns stays valid as long as its owner keeps it. The descriptor behind it is closed when another
// file needs one, least recently used first, and reopened by the next call. A descriptor is never closed during a call.
// When all descriptors are in calls, a caller that needs one waits for a call to end. This cannot deadlock, because no
// call of the storage below needs a second descriptor.
//
// A file with unsynced writes is never closed, because the kernel could then lose a writeback error. Linux reports a
// failed writeback to the descriptors that were open at that time. Other than these, only the first descriptor opened
// afterwards gets the report, provided that the error was not reported before and that the inode is still in memory
// (errseq_t in the kernel's documentation; fsync(2), BUGS). An fsync by another process, or memory pressure, would lose
// the report, and a later fdatasync would succeed although data is lost. Therefore only synced files are closed. When
// there are none, one syncfs(2) first syncs everything, which is cheaper than syncing that many files one by one. If it
// fails with a transient error, the caller gets its descriptor and nothing is closed. After any other failure
// durability cannot be promised any more: every later sync fails with the same error, and files are closed with or
// without unsynced writes, so that reads continue to work.
//
// A file is reopened for reading if it was first opened for reading, and otherwise as an existing file: if it was
// removed meanwhile, calls fail with Errc::corrupt. Thread-safe. mutex_ is never held during a call of the storage
// below.
#pragma once

#include <list>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

class FileCache final : public Storage {
 public:
  // `most`: maximum number of descriptors of open files, at least 1.
  FileCache(std::unique_ptr<Storage> disk, std::size_t most);
  ~FileCache() override;

  // The number of descriptors that the current soft limit RLIMIT_NOFILE leaves for files of the store.
  static std::size_t most_for_process();
  static std::size_t most_for_limit(std::uint64_t descriptors);

  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override;
  Result<bool> exists(std::string_view path) override { return disk_->exists(path); }
  Status make_directory(std::string_view path) override { return disk_->make_directory(path); }
  Status remove(std::string_view path) override { return disk_->remove(path); }
  Status remove_directory(std::string_view path) override { return disk_->remove_directory(path); }
  Status rename(std::string_view from, std::string_view to) override { return disk_->rename(from, to); }
  Result<std::vector<std::string>> list(std::string_view path) override { return disk_->list(path); }
  Status sync_directory(std::string_view path) override { return disk_->sync_directory(path); }
  Status sync_all() override;
  Result<Space> space() override { return disk_->space(); }

  std::size_t open_files() const;

 private:
  class CachedFile;
  class Place;
  struct Opened;
  using Files = std::list<CachedFile*>;  // most recently used first

  // Takes a place for one more descriptor. If there is none, closes another file or waits for a call to end.
  Result<Place> take_place();
  Result<Opened> open_within_bound(const std::string& path, OpenMode mode);
  Result<Opened> open_again(const CachedFile& file);
  // Closes the least recently used synced file, after syncing all files if none is synced. False if all files are in
  // calls.
  Result<bool> close_one() EXCLUDES(mutex_);
  static bool has_idle(const Files& files);
  // The least recently used synced file that is not in a call; the caller closes it without the lock.
  std::optional<Opened> take_oldest() REQUIRES(mutex_);
  Status sync_to_close() EXCLUDES(mutex_);
  // When it returns, the file is open, and stays open until end_call().
  Status begin_call(CachedFile& file) EXCLUDES(mutex_);
  void end_call(CachedFile& file, bool wrote) EXCLUDES(mutex_);
  Status sync(CachedFile& file) EXCLUDES(mutex_);
  void used(CachedFile& file) REQUIRES(mutex_);
  void synced(CachedFile& file, Files::const_iterator before) REQUIRES(mutex_);
  // Marks the files whose last write is not newer than `covered`.
  void all_synced(std::uint64_t covered) REQUIRES(mutex_);
  void forget(CachedFile& file) EXCLUDES(mutex_);

  const std::unique_ptr<Storage> disk_;
  const std::size_t most_;

  mutable Mutex mutex_;
  CondVar changed_;  // signalled when a place is freed, a call ends or a sync ends
  std::size_t places_ GUARDED_BY(mutex_) = 0;  // descriptors that are open, being opened or being closed
  Files synced_ GUARDED_BY(mutex_);            // open files without unsynced writes
  Files unsynced_ GUARDED_BY(mutex_);          // open files with unsynced writes
  std::uint64_t writes_ GUARDED_BY(mutex_) = 0;
  bool syncing_ GUARDED_BY(mutex_) = false;    // sync_to_close() is running
  std::optional<Error> failure_ GUARDED_BY(mutex_);  // permanent error of such a sync
};

}  // namespace rekeyfs::io
