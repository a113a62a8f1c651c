// EventIndex: the numbers of the events in the audit log, by ring, and in each ring by user; decides which event is
// dropped.
//
// Events of one ring never push out those of another. A full ring drops the oldest event of the user who has most events
// in it, the new one included, and of several such users, of the one whose event is new: so no user pushes out the events
// of another who has no more. In memory; built when a store is opened; some hundred bytes per event. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "engine/types/event.h"

namespace rekeyfs::audit {

// Decisions: keys, grants, rights, policies, quotas, declassification, rotations, the clock.
enum class Ring : std::uint8_t { decisions, copies, refusals };
inline constexpr std::size_t kRings = 3;

Ring ring_of(EventKind kind);

// Maximum number of events of each ring.
using RingBounds = std::array<std::size_t, kRings>;
inline constexpr RingBounds kRingBounds{10'000, 10'000, 5'000};

class EventIndex {
 public:
  struct Entry {
    EventKind kind;
    uid_t uid;
  };

  explicit EventIndex(const RingBounds& bounds) : bounds_(bounds) {}

  void add(std::uint64_t number, Entry entry);  // no-op if the number is there
  std::optional<Entry> remove(std::uint64_t number);
  void remove_from(std::uint64_t first);  // that number and all higher ones
  // The event to drop before the new one is added; nullopt while its ring has room.
  std::optional<std::uint64_t> to_drop(const Entry& added) const;
  std::vector<std::uint64_t> find(const EventQuery& query, std::uint64_t end) const;  // ascending, all below `end`
  std::uint64_t newest() const { return entries_.empty() ? 0 : entries_.rbegin()->first; }

 private:
  struct Members {
    std::map<uid_t, std::set<std::uint64_t>> by_user;
    std::size_t size = 0;
  };
  Members& members_of(EventKind kind) { return rings_[static_cast<std::size_t>(ring_of(kind))]; }

  const RingBounds bounds_;
  std::map<std::uint64_t, Entry> entries_;
  std::array<Members, kRings> rings_;
};

}  // namespace rekeyfs::audit
