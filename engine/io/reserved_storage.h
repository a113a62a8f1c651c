// ReservedStorage: a storage that keeps a part of the disk back for what must work when it is full: deleting,
// checkpoints, recovery and unmounting.
//
// The reserve is real space, in a preallocated file, so that nobody else on the disk can take it. It is given back to
// the file system when a write that must not fail meets a full disk, and taken again when there is room. Before that
// point everything that adds to the store is refused (room_to_add()), so that what can be put off does not eat what the
// rest needs. Files of content get the space that is left beyond the reserve, and nothing of it.
// Thread-safe. Made by Store; a decorator over any other storage.
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
  // What one checkpoint writes at most on a disk that is nearly full, for then checkpoints come before they need a
  // quarter of this: changed table pages, LMDB's copies of changed pages, a journal segment. The rest is for
  // the changes made meanwhile and for the next mount. A disk of less than 128 MiB keeps a sixteenth.
  static constexpr std::uint64_t kMostReserve = 8u << 20;

  using IsContent = std::function<bool(std::string_view path)>;
  ReservedStorage(std::unique_ptr<Storage> disk, IsContent is_content);

  // A reserve that the last mount left is known from now on. Once, with the store's lock held, before any change.
  Status adopt();
  // Takes the reserve again, or as much of it as there is room for.
  void refill();
  // Runs what must not fail on a full disk: if it meets one, once more with the reserve given back. For writes that do
  // not go through a storage (LMDB's); those of files other than content do so by themselves.
  template <typename Attempt>
  auto with_reserve(Attempt attempt) -> decltype(attempt()) {
    const std::uint64_t seen = times_given();
    auto done = attempt();
    if (done || done.error().code != Errc::no_space || !give_back(seen)) return done;
    return attempt();
  }

  // Errc::no_space unless `bytes` more can be stored without touching the reserve. What passes is counted, so that the
  // file system need not be asked each time.
  Status room_to_add(std::uint64_t bytes);
  // The same for small changes of what is there, which may use half of the reserve: the other half is for deleting and
  // checkpoints.
  Status room_to_change();
  // What checkpoints may leave undone; they are due before they need more.
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
  Result<Space> space() override;  // available: what may still be added

 private:
  class ReservedFile;
  using Clock = std::chrono::steady_clock;

  std::uint64_t times_given() const;
  // False if there is nothing to give and nothing was given since `seen`.
  bool give_back(std::uint64_t seen);
  void look(bool now) REQUIRES(mutex_);
  Status punch() REQUIRES(mutex_);
  Status allocate(std::uint64_t bytes) REQUIRES(mutex_);
  std::uint64_t spare() const REQUIRES(mutex_);  // bytes beyond the reserve and the headroom

  const std::unique_ptr<Storage> disk_;
  const IsContent is_content_;
  std::uint64_t size_ = 0;  // of the reserve; set by adopt()

  mutable Mutex mutex_;
  std::unique_ptr<File> file_ GUARDED_BY(mutex_);
  std::uint64_t held_ GUARDED_BY(mutex_) = 0;      // bytes
  bool adopted_ GUARDED_BY(mutex_) = false;        // held_ is a guess: what is left of the last mount's is not known
  std::uint64_t given_ GUARDED_BY(mutex_) = 0;     // times
  std::uint64_t free_ GUARDED_BY(mutex_) = 0;      // bytes on the disk, as of looked_
  std::uint64_t half_used_ GUARDED_BY(mutex_) = 0;  // free_ when half of what was given back last will be used up
  std::uint64_t left_ GUARDED_BY(mutex_) = 0;      // bytes for ordinary use, the reserve included, as of looked_
  Clock::time_point looked_ GUARDED_BY(mutex_){};
};

}  // namespace rekeyfs::io
