#include "engine/formats/format_readers.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace rekeyfs::formats {
namespace {

// A reader used more recently than this is not considered idle: ending it costs more than it gains.
constexpr auto kIdle = std::chrono::milliseconds(100);
constexpr auto kLook = std::chrono::milliseconds(10);  // poll interval of those who wait
// How long a reader runs before it is retired, so that starting it has paid.
constexpr auto kShortestRun = std::chrono::seconds(1);
// How long a caller waits for a retired reader before it retires another one.
constexpr auto kBetweenRetirements = std::chrono::milliseconds(500);

}  // namespace

Result<std::shared_ptr<FormatReader>> FormatReaders::start(std::shared_ptr<Content> image, Format format,
                                                           const Patience& patience, uid_t user, Clock::time_point deadline) {
  RK_TRY(wait_for_place(user, deadline));
  auto reader = FormatReader::start(std::move(image), format, patience);
  Lock lock(mutex_);
  starting_.erase(starting_.find(user));
  if (reader) running_.push_back({*reader, user, Clock::now()});
  return reader;
}

Status FormatReaders::wait_for_place(uid_t user, Clock::time_point deadline) {
  Place waiter;
  {
    Lock lock(mutex_);
    waiter = line_.insert(line_.end(), Waiter{user});
  }
  bool has_place = take_place(waiter);
  while (!has_place && Clock::now() < deadline) {
    {
      Lock lock(mutex_);
      moved_.wait_for(mutex_, kLook);
    }
    has_place = take_place(waiter);
  }
  Lock lock(mutex_);
  line_.erase(waiter);
  moved_.notify_all();
  if (has_place) return {};
  return fail(Errc::busy, "too many images in other formats than raw are being read at once (the limits are " +
                              std::to_string(most_) + ", and " + std::to_string(share()) + " of one user); try again");
}

bool FormatReaders::take_place(Place waiter) {
  std::vector<ReaderPtr> readers;  // destroyed after the lock is released
  Lock lock(mutex_);
  readers = remove_ended();
  if (!is_turn_of(*waiter)) return false;
  if (!has_place_for(waiter->user)) {
    make_room_for(*waiter);
    remove_ended();  // all of them are in `readers`, too
  }
  // Whoever had his share until now may have to wait for others.
  if (!has_place_for(waiter->user) || !is_turn_of(*waiter)) return false;
  starting_.insert(waiter->user);
  last_user_ = waiter->user;
  return true;
}

// A user who has his share waits for a reader of his own, and the others do not wait for him.
bool FormatReaders::is_turn_of(const Waiter& waiter) {
  std::optional<uid_t> next, lowest;
  for (const Waiter& one : line_) {
    if (one.user == waiter.user && &one != &waiter) return false;  // came earlier
    if (&one == &waiter) break;
  }
  if (places_of(waiter.user) >= share()) return true;
  for (const Waiter& one : line_) {
    if (places_of(one.user) >= share()) continue;
    if (!lowest || one.user < *lowest) lowest = one.user;
    if (one.user > last_user_ && (!next || one.user < *next)) next = one.user;
  }
  return waiter.user == (next ? *next : *lowest);
}

std::size_t FormatReaders::places_of(uid_t user) const {
  const auto mine = std::ranges::count(running_, user, &Running::user);
  return static_cast<std::size_t>(mine) + starting_.count(user);
}

bool FormatReaders::has_place_for(uid_t user) const {
  return running_.size() + starting_.size() < most_ && places_of(user) < share();
}

std::vector<FormatReaders::ReaderPtr> FormatReaders::remove_ended() {
  std::vector<ReaderPtr> readers;
  readers.reserve(running_.size());
  std::erase_if(running_, [&](const Running& running) {
    ReaderPtr reader = running.reader.lock();
    const bool is_over = !reader || reader->is_over();
    if (reader) readers.push_back(std::move(reader));
    return is_over;
  });
  return readers;
}

void FormatReaders::make_room_for(Waiter& waiter) {
  const bool own_only = places_of(waiter.user) >= share();
  ReaderPtr idlest, oldest;
  Clock::time_point oldest_since = Clock::time_point::max();
  std::size_t most = 0;
  for (const Running& running : running_) {
    if (own_only && running.user != waiter.user) continue;
    const ReaderPtr reader = running.reader.lock();
    if (!reader || reader->state() != FormatReader::State::running) continue;
    if (!idlest || reader->last_used() < idlest->last_used()) idlest = reader;
    const std::size_t places = places_of(running.user);
    if (places < most || (places == most && running.since >= oldest_since)) continue;
    most = places;
    oldest = reader;
    oldest_since = running.since;
  }
  if (idlest) idlest->end_if_idle_for(kIdle);
  if (!idlest || idlest->is_over()) return;
  const Clock::time_point now = Clock::now();
  if (now - oldest_since < kShortestRun || now < waiter.next_retirement) return;
  waiter.next_retirement = now + kBetweenRetirements;
  oldest->retire();
}

}  // namespace rekeyfs::formats
