#include "engine/images/refusal_windows.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::images {

void RefusalWindows::Repeats::count(const Event& refusal) {
  const std::uint64_t counted = latest ? latest->count : 0;
  const Timestamp since = latest ? latest->since : refusal.time;
  latest = refusal;
  latest->count = counted + 1;
  latest->since = since;
}

bool RefusalWindows::is_new(const Event& refusal, Clock::time_point now) {
  const bool has_room = windows_.contains(refusal.uid) || windows_.size() < kUsers;
  const uid_t user = has_room ? refusal.uid : kSeveralUsers;
  Window& window = windows_.try_emplace(user, Window{now + kLength, {}, {}}).first->second;
  const auto found = window.repeats.find({refusal.path, refusal.source, refusal.text});
  if (found != window.repeats.end()) {
    found->second.count(refusal);
    return false;
  }
  if (window.repeats.size() < kDistinct && has_room) {
    window.repeats.try_emplace({refusal.path, refusal.source, refusal.text});
    return true;
  }
  window.others.count(refusal);
  window.others.latest->uid = user;
  return false;
}

std::vector<Event> RefusalWindows::end(Clock::time_point now) {
  std::vector<Event> counted;
  for (auto at = windows_.begin(); at != windows_.end();) {
    Window& window = at->second;
    if (window.end > now) {
      ++at;
      continue;
    }
    for (auto& [reason, repeats] : window.repeats)
      if (repeats.latest) counted.push_back(std::move(*repeats.latest));
    if (window.others.latest) {
      window.others.latest->text = "of several paths or for several reasons, at last: " + window.others.latest->text;
      counted.push_back(std::move(*window.others.latest));
    }
    at = windows_.erase(at);
  }
  return counted;
}

std::optional<RefusalWindows::Clock::time_point> RefusalWindows::next_end() const {
  std::optional<Clock::time_point> next;
  for (const auto& [user, window] : windows_) next = std::min(next.value_or(window.end), window.end);
  return next;
}

}  // namespace rekeyfs::images
