// Schedule: which replications are worked on now, and when those that failed are tried again.
//
// At most kMostActive jobs are active: of each user who asked for some the oldest, then of each the second oldest, until all
// places are taken; where there are not enough places, the older jobs get them. Users take turns, and of a user's active jobs
// the oldest comes first. A job that fails gives its place to another and rests, for a second at first and after each failure
// for twice as long; it ends its rest early when a key was enabled, or space became free, if that is what it failed for.
// So a job that cannot go on holds up nobody, and costs nothing while it rests.
//
// Jobs are known by their layers, whose numbers grow, so that the smaller one is the older job. No clock, no locks: the owner
// says what time it is, and guards it.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"

namespace rekeyfs::replication {

class Schedule {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kMostActive = 4;
  static constexpr Clock::duration kShortestRest = std::chrono::seconds(1), kLongestRest = std::chrono::seconds(256);

  // In place of a job of the same number.
  void add(LayerId job, uid_t user);
  void remove(LayerId job) noexcept;
  // Nothing is to be done for it until it is resumed.
  void pause(LayerId job);
  void resume(LayerId job);

  struct Failure {
    enum class Cause { other, key, space };
    Cause cause = Cause::other;
    std::uint64_t bytes_needed = 0, bytes_free = 0;  // for want of space: it goes on when that many are free, and more than were
  };
  void failed(LayerId job, const Failure& failure, Clock::time_point now);
  void succeeded(LayerId job);  // where it had failed: the next rest is a short one again
  void key_enabled();
  void space_is(std::uint64_t bytes_free);
  bool waits_for_space() const { return wait_for_space_ > 0; }

  // The active jobs, in the order in which they are to be looked at.
  std::vector<LayerId> active(Clock::time_point now);
  void served(LayerId job);  // the other users are next
  // When the next rest ends.
  std::optional<Clock::time_point> next_end() const;

 private:
  enum class State { ready, paused, resting };
  struct Entry {
    uid_t user = 0;
    State state = State::ready;
    Failure failure;
    Clock::duration rest{};  // the latest one
    Clock::time_point end{};
  };
  using Jobs = std::map<LayerId, Entry>;
  void set_state(LayerId job, Entry& entry, State state);
  template <typename Which>
  void wake(Which which);
  void end_rests(Clock::time_point now);
  std::vector<LayerId> choose() const;

  Jobs jobs_;
  std::map<uid_t, std::set<LayerId>> ready_;  // by user
  std::set<std::pair<Clock::time_point, LayerId>> ends_;  // of those that rest
  std::size_t wait_for_space_ = 0;  // how many of those
  std::optional<std::vector<LayerId>> chosen_;  // none since something changed
  uid_t last_user_ = 0;
};

}  // namespace rekeyfs::replication
