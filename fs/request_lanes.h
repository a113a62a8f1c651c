// RequestLanes: keeps requests that may wait from occupying all threads, and one user's requests from keeping another's
// waiting.
//
// Content and commands have a lane each, with a number of places: so many of their requests are served at a time, and
// so many of one user's. A request without a place waits here as a copy, and its thread goes back to receiving. A
// thread that leaves a place takes along the next request: users in turn, and each user's requests in the order of
// their arrival. Prompt requests are in no lane.
//
// The waiting requests have bounded memory. A request that does not fit is served at once, beyond the places. Knows no
// session. Thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/base/mutex.h"
#include "fs/request.h"

namespace rekeyfs::fs {

class RequestLanes {
 public:
  struct Places {
    std::size_t all, of_one_user;
  };
  // More reads of one user at a time measured no faster.
  static constexpr Places kContentPlaces{32, 8}, kCommandPlaces{8, 2};
  // 64 of the largest writes.
  static constexpr std::size_t kMaxWaitingBytes = std::size_t{64} << 20;

  struct Waiting {
    RequestHead head;
    std::vector<std::byte> bytes;
  };

  explicit RequestLanes(std::size_t max_waiting_bytes = kMaxWaitingBytes) : max_waiting_bytes_(max_waiting_bytes) {}

  // Whether the caller serves the request now, and then calls leave(). Otherwise a copy of it waits.
  bool enter(const RequestHead& head, ByteView request) EXCLUDES(mutex_);
  // The caller has served a request. It serves the one returned next, which has entered.
  std::optional<Waiting> leave(const RequestHead& served) noexcept EXCLUDES(mutex_);

 private:
  struct Lane {
    Places places;
    std::size_t taken = 0;
    std::map<uid_t, std::size_t> taken_by = {};      // of users with a place or a waiting request
    std::multimap<uid_t, Waiting> waiting = {};      // each user's in the order of arrival
    uid_t last_user = 0;

    bool has_place_for(uid_t user) const;
    void take(uid_t user);
    void give_back(uid_t user) noexcept;
    void put(const RequestHead& head, ByteView request);
    std::optional<Waiting> next() noexcept;
  };
  Lane& lane_of(RequestHead::Kind kind) REQUIRES(mutex_);  // not of prompt requests

  const std::size_t max_waiting_bytes_;
  Mutex mutex_;
  std::array<Lane, 2> lanes_ GUARDED_BY(mutex_){Lane{kContentPlaces}, Lane{kCommandPlaces}};
  std::size_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace rekeyfs::fs
