// FormatReaders: all format readers of a store; bounds how many run at a time, and how many of them work for one user.
//
// Each one is a process with its own memory, and there may be hundreds of images that are read as disks. When a reader
// needs a place and there is none, the reader that was idle longest is ended; the next read of its image starts a new
// one. When all are in use, callers wait in line: users in turn, and each user's callers in the order of their arrival.
// The first one retires the oldest reader of the user who has most, once that has run for a while. Thread-safe.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <set>
#include <vector>

#include <sys/types.h>

#include "engine/base/mutex.h"
#include "engine/formats/format_reader.h"

namespace rekeyfs::formats {

class FormatReaders {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMost = 32;
  explicit FormatReaders(std::size_t most = kMost) : most_(most) {}

  // Like FormatReader::start(). Also Errc::busy if there was no place by the deadline.
  Result<std::shared_ptr<FormatReader>> start(std::shared_ptr<Content> image, Format format, const Patience& patience,
                                              uid_t user, Clock::time_point deadline) EXCLUDES(mutex_);

 private:
  using ReaderPtr = std::shared_ptr<FormatReader>;
  struct Running {
    std::weak_ptr<FormatReader> reader;
    uid_t user;
    Clock::time_point since;
  };
  struct Waiter {
    uid_t user;
    Clock::time_point next_retirement{};
  };
  using Place = std::list<Waiter>::iterator;

  Status wait_for_place(uid_t user, Clock::time_point deadline) EXCLUDES(mutex_);
  // Takes a place for the waiter if it is its turn and one is free. Otherwise tries to make one free.
  bool take_place(Place waiter) EXCLUDES(mutex_);
  bool is_turn_of(const Waiter& waiter) REQUIRES(mutex_);
  // The most that one user may have.
  std::size_t share() const { return most_ > 1 ? most_ / 2 : 1; }
  std::size_t places_of(uid_t user) const REQUIRES(mutex_);
  bool has_place_for(uid_t user) const REQUIRES(mutex_);
  // Removes readers that are over from the list. Returns all that were in it; the caller destroys them without the lock,
  // because the last reference waits for reads of the image.
  std::vector<ReaderPtr> remove_ended() REQUIRES(mutex_);
  void make_room_for(Waiter& waiter) REQUIRES(mutex_);

  const std::size_t most_;
  Mutex mutex_;
  CondVar moved_;  // the line has become shorter
  std::vector<Running> running_ GUARDED_BY(mutex_);
  std::multiset<uid_t> starting_ GUARDED_BY(mutex_);  // users for whom a reader starts
  std::list<Waiter> line_ GUARDED_BY(mutex_);          // in the order of arrival
  uid_t last_user_ GUARDED_BY(mutex_) = 0;
};

}  // namespace rekeyfs::formats
