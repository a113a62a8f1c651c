// FileCache: a storage whose files share a bounded number of descriptors.
//
// A decorator. A File that it gives out stays valid for as long as its owner keeps it; the descriptor behind it is
// closed when others need one, least recently used first, and opened again by the next call. A descriptor is not closed
// during a call. When all of them are in calls, a caller that needs one waits for one of these calls to end; no call of
// the storage below needs a second one, so this ends.
//
// Why a file with unsynced writes is never closed: Linux reports a failed writeback to the descriptors that were open
// when it happened, and besides these only to the first descriptor opened after it, provided that nobody was told and
// the kernel still has the inode in memory (errseq_t in the kernel's documentation; fsync(2), BUGS). Somebody else's
// fsync, or memory pressure, would lose the report, and a later fdatasync would return success for data that is gone. So
// only synced files are closed. When there are none, everything is synced first, with one syncfs(2), as this many files
// are cheaper to sync together than one by one. If that fails with a passing error, the caller that needed the descriptor
// gets it and nothing is closed. After any other failure nothing can be promised any more: every later sync fails with
// the same error, and files are closed with or without unsynced writes, so that reading goes on.
//
// A file is opened for reading again as it was opened first, and otherwise as one that exists: if it has been removed
// meanwhile, calls answer Errc::corrupt. Thread-safe. `mutex_` is never held during a call of the storage below.
#pragma once

#include <list>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

class FileCache final : public Storage {
 public:
  // `most`: descriptors of open files, at least 1.
  FileCache(std::unique_ptr<Storage> disk, std::size_t most);
  ~FileCache() override;

  // What the soft limit RLIMIT_NOFILE, as it is now, leaves for files of the store.
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

  // One more descriptor may be opened. Closes another file for it, or waits for a call to end, if need be.
  Result<Place> take_place();
  Result<Opened> open_within_bound(const std::string& path, OpenMode mode);
  Result<Opened> open_again(const CachedFile& file);
  // Closes the least recently used file that is synced, or syncs all files so that there is one; false if all are in calls.
  Result<bool> close_one() EXCLUDES(mutex_);
  static bool has_idle(const Files& files);
  // The least recently used file that is synced and not in a call, to be closed by the caller without the lock.
  std::optional<Opened> take_oldest() REQUIRES(mutex_);
  Status sync_to_close() EXCLUDES(mutex_);
  // The file is open when it returns, and stays so until end_call().
  Status begin_call(CachedFile& file) EXCLUDES(mutex_);
  void end_call(CachedFile& file, bool wrote) EXCLUDES(mutex_);
  Status sync(CachedFile& file) EXCLUDES(mutex_);
  void used(CachedFile& file) REQUIRES(mutex_);
  void synced(CachedFile& file, Files::const_iterator before) REQUIRES(mutex_);
  void all_synced(std::uint64_t covered) REQUIRES(mutex_);  // the files whose last write is not after that one
  void forget(CachedFile& file) EXCLUDES(mutex_);

  const std::unique_ptr<Storage> disk_;
  const std::size_t most_;

  mutable Mutex mutex_;
  CondVar changed_;  // a place was freed, a call has ended, a sync has ended
  std::size_t places_ GUARDED_BY(mutex_) = 0;  // descriptors open, being opened, or being closed
  Files synced_ GUARDED_BY(mutex_);            // open files
  Files unsynced_ GUARDED_BY(mutex_);          // open files that were written to since they were synced
  std::uint64_t writes_ GUARDED_BY(mutex_) = 0;
  bool syncing_ GUARDED_BY(mutex_) = false;    // in sync_to_close()
  std::optional<Error> failure_ GUARDED_BY(mutex_);  // of such a sync, for good
};

}  // namespace rekeyfs::io
