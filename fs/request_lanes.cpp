#include "fs/request_lanes.h"

#include <utility>

namespace rekeyfs::fs {

RequestLanes::Lane& RequestLanes::lane_of(RequestHead::Kind kind) {
  return kind == RequestHead::Kind::command ? lanes_[1] : lanes_[0];
}

bool RequestLanes::enter(const RequestHead& head, ByteView request) {
  if (head.kind == RequestHead::Kind::prompt) return true;
  Lock lock(mutex_);
  Lane& lane = lane_of(head.kind);
  const bool fits = request.size() <= max_waiting_bytes_ - waiting_bytes_;
  if (fits && !lane.has_place_for(head.user)) {
    lane.put(head, request);
    waiting_bytes_ += request.size();
    return false;
  }
  lane.take(head.user);
  return true;
}

std::optional<RequestLanes::Waiting> RequestLanes::leave(const RequestHead& served) noexcept {
  if (served.kind == RequestHead::Kind::prompt) return std::nullopt;
  Lock lock(mutex_);
  Lane& lane = lane_of(served.kind);
  lane.give_back(served.user);
  std::optional<Waiting> next = lane.next();
  if (next) waiting_bytes_ -= next->bytes.size();
  return next;
}

bool RequestLanes::Lane::has_place_for(uid_t user) const {
  const auto found = taken_by.find(user);
  return taken < places.all && (found == taken_by.end() || found->second < places.of_one_user);
}

void RequestLanes::Lane::take(uid_t user) {
  ++taken_by[user];  // comes first because it allocates memory
  ++taken;
}

void RequestLanes::Lane::give_back(uid_t user) noexcept {
  --taken;
  const auto found = taken_by.find(user);
  if (--found->second == 0 && !waiting.contains(user)) taken_by.erase(found);
}

void RequestLanes::Lane::put(const RequestHead& head, ByteView request) {
  taken_by.try_emplace(head.user, 0);  // so that taking a place for it allocates no memory
  waiting.emplace(head.user, Waiting{head, {request.begin(), request.end()}});
}

// Takes a place for the next user, after the one who was last, who may have one.
std::optional<RequestLanes::Waiting> RequestLanes::Lane::next() noexcept {
  auto turn = waiting.upper_bound(last_user);
  for (std::size_t asked = 0; asked < taken_by.size() && !waiting.empty(); ++asked) {
    if (turn == waiting.end()) turn = waiting.begin();
    if (has_place_for(turn->first)) {
      last_user = turn->first;
      take(last_user);
      return std::move(waiting.extract(turn).mapped());
    }
    turn = waiting.upper_bound(turn->first);
  }
  return std::nullopt;
}

}  // namespace rekeyfs::fs
