// ReservedStorage: a storage decorator that keeps disk space in reserve for operations that must work on a full disk:
// deletion, checkpoints, recovery and unmounting.
//
// The reserve is a preallocated file, so that no other program can use the space. It is released when a write that must
// not fail meets a full disk, and allocated again when there is space. Before the disk is full, additions to the store
// are refused (room_to_add()), so that deferrable operations do not consume what the others need. Files of content may
// use the space beyond the reserve only. Thread-safe. Created by Store.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/io/storage.h"

namespace rekeyfs::io {

inline constexpr std::string_view kReserveName = "reserve";

class ReservedStorage final : public Storage {
 public:
  // Upper bound of what one checkpoint writes on a nearly full disk: checkpoints are then due before they need a
  // quarter of this for changed table pages, LMDB's copies of changed pages and a journal segment. The rest is for
  // changes made during the checkpoint and for the next mount. Disks of less than 128 MiB reserve a sixteenth.
  static constexpr std::uint64_t kMaxReserve = 8u << 20;

  using IsContent = std::function<bool(std::string_view path)>;
  ReservedStorage(std::unique_ptr<Storage> disk, IsContent is_content);

  // Takes over the reserve of the last mount. Call once, holding the store's lock, before any change.
  Status adopt();
  // Allocates the reserve again, or as much of it as there is space for.
  void refill();
  // Calls `attempt`, which must not fail on a full disk; if it does, releases the reserve and calls it once more. For
  // writes that bypass the storage (LMDB's); files other than content do this by themselves.
  template <typename Attempt>
  auto with_reserve(Attempt attempt) -> decltype(attempt()) {
    const std::uint64_t seen = times_given();
    auto done = attempt();
    if (done || done.error().code != Errc::no_space || !give_back(seen)) return done;
    return attempt();
  }

  // Errc::no_space unless `bytes` more can be stored without touching the reserve. Accepted bytes are counted, so that
  // not every call needs to ask the file system.
  Status room_to_add(std::uint64_t bytes);
  // The same for small changes of existing data, which may use half of the reserve; the other half is left to deletions
  // and checkpoints.
  Status room_to_change();
  // Upper bound of the bytes that changes may leave to the next checkpoint; it is due before it needs more.
  std::uint64_t room_for_checkpoint();

  Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override;
  Result<bool> exists(std::string_view path) override { return disk_->exists(path); }
  Status make_directory(std::string_view path) override { return disk_->make_directory(path); }
  Status remove(std::string_view path) override { return disk_->remove(path); }
  Status remove_directory(std::string_view path) override { return disk_->remove_directory(path); }
  Status rename(std::string_view from, std::string_view to) override { return disk_->rename(from, to); }
  Result<std::vector<std::string>> list(std::string_view path) override { return disk_->list(path); }
  Status sync_directory(std::string_view path) override { return disk_->sync_directory(path); }
  Status sync_all() override { return disk_->sync_all(); }
  Result<Space> space() override;  // available: bytes that may still be added

 private:
  class ReservedFile;
  using Clock = std::chrono::steady_clock;

  std::uint64_t times_given() const;
  // False if the reserve is empty and was not released since `seen` either.
  bool give_back(std::uint64_t seen);
  void look(bool now) REQUIRES(mutex_);
  Status punch() REQUIRES(mutex_);
  Status allocate(std::uint64_t bytes) REQUIRES(mutex_);
  std::uint64_t spare() const REQUIRES(mutex_);  // bytes beyond the reserve and the headroom

  const std::unique_ptr<Storage> disk_;
  const IsContent is_content_;
  std::uint64_t size_ = 0;  // of the reserve in bytes; set by adopt()

  mutable Mutex mutex_;
  std::unique_ptr<File> file_ GUARDED_BY(mutex_);
  std::uint64_t held_ GUARDED_BY(mutex_) = 0;      // bytes allocated now
  bool adopted_ GUARDED_BY(mutex_) = false;        // held_ is a guess: it is unknown how much the last mount left
  std::uint64_t given_ GUARDED_BY(mutex_) = 0;     // number of releases
  std::uint64_t free_ GUARDED_BY(mutex_) = 0;      // bytes free on the disk, at time looked_
  std::uint64_t half_used_ GUARDED_BY(mutex_) = 0;  // value of free_ at which half of the last release is used up
  std::uint64_t left_ GUARDED_BY(mutex_) = 0;      // bytes for ordinary use, including the reserve, at time looked_
  Clock::time_point looked_ GUARDED_BY(mutex_){};
};

}  // namespace rekeyfs::io
