#include "engine/audit/event_index.h"

#include <algorithm>

namespace rekeyfs::audit {

Ring ring_of(EventKind kind) {
  switch (kind) {
    case EventKind::refused: return Ring::refusals;
    case EventKind::replication_asked:
    case EventKind::replication_completed:
    case EventKind::replication_failed:
    case EventKind::replication_recovered:
    case EventKind::cloned: return Ring::copies;
    default: return Ring::decisions;
  }
}

void EventIndex::add(std::uint64_t number, Entry entry) {
  if (!entries_.emplace(number, entry).second) return;
  Members& members = members_of(entry.kind);
  members.by_user[entry.uid].insert(number);
  ++members.size;
}

std::optional<EventIndex::Entry> EventIndex::remove(std::uint64_t number) {
  const auto found = entries_.find(number);
  if (found == entries_.end()) return std::nullopt;
  const Entry entry = found->second;
  entries_.erase(found);
  Members& members = members_of(entry.kind);
  const auto user = members.by_user.find(entry.uid);
  user->second.erase(number);
  if (user->second.empty()) members.by_user.erase(user);
  --members.size;
  return entry;
}

void EventIndex::remove_from(std::uint64_t first) {
  while (newest() >= first && !entries_.empty()) remove(newest());
}

std::optional<std::uint64_t> EventIndex::to_drop(const Entry& added) const {
  const auto ring = static_cast<std::size_t>(ring_of(added.kind));
  const Members& members = rings_[ring];
  if (members.size < bounds_[ring] || members.size == 0) return std::nullopt;
  const auto most = std::max_element(members.by_user.begin(), members.by_user.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  const auto own = members.by_user.find(added.uid);
  const bool has_most = own != members.by_user.end() && own->second.size() + 1 >= most->second.size();
  return *(has_most ? own : most)->second.begin();
}

std::vector<std::uint64_t> EventIndex::find(const EventQuery& query, std::uint64_t end) const {
  std::vector<std::uint64_t> found;
  const auto take = [&](const auto& one) {
    const auto& [number, entry] = one;
    if ((!query.uid || entry.uid == *query.uid) && (!query.kind || entry.kind == *query.kind)) found.push_back(number);
    return found.size() < query.most;
  };
  if (query.most == 0 || query.after >= end) return found;
  const auto first = entries_.upper_bound(query.after), last = entries_.lower_bound(end);
  if (query.oldest) {
    for (auto one = first; one != last && take(*one);) ++one;
    return found;
  }
  for (auto one = last; one != first && take(*--one);) {
  }
  std::reverse(found.begin(), found.end());
  return found;
}

}  // namespace rekeyfs::audit
