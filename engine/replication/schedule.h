// Schedule: which replications are active now, and when failed ones are retried.
//
// At most kMaxActive jobs are active: first the oldest job of each user, then the second oldest of each, and so on
// until all places are taken; when places run out, older jobs go first. Users take turns; the active jobs of one user
// are ordered by age. A failed job gives its place to another one and rests, for one second at first and twice as long
// after each further failure. The rest ends early when a key is enabled or space becomes free, if that was the cause. A
// job that cannot continue therefore blocks no other job and costs nothing while it rests.
//
// A job is identified by its layer; layer numbers grow, so the smaller number is the older job. No clock and no locks:
// the owner passes the time and guards the object.
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
  static constexpr std::size_t kMaxActive = 4;
  static constexpr Clock::duration kShortestRest = std::chrono::seconds(1), kLongestRest = std::chrono::seconds(256);

  // Replaces a job with the same number.
  void add(LayerId job, uid_t user);
  void remove(LayerId job) noexcept;
  // The job gets no place until it is resumed.
  void pause(LayerId job);
  void resume(LayerId job);

  struct Failure {
    enum class Cause { other, key, space };
    Cause cause = Cause::other;
    // Cause `space`: retried when bytes_needed are free, and more than bytes_free.
    std::uint64_t bytes_needed = 0, bytes_free = 0;
  };
  void failed(LayerId job, const Failure& failure, Clock::time_point now);
  void succeeded(LayerId job);  // after a failure: the next rest is short again
  void key_enabled();
  void space_is(std::uint64_t bytes_free);
  bool waits_for_space() const { return wait_for_space_ > 0; }

  // The active jobs, in the order in which a worker considers them.
  std::vector<LayerId> active(Clock::time_point now);
  void served(LayerId job);  // the other users' turns come next
  // When the earliest rest ends.
  std::optional<Clock::time_point> next_end() const;

 private:
  enum class State { ready, paused, resting };
  struct Entry {
    uid_t user = 0;
    State state = State::ready;
    Failure failure;
    Clock::duration rest{};  // duration of the latest rest
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
  std::set<std::pair<Clock::time_point, LayerId>> ends_;  // of resting jobs
  std::size_t wait_for_space_ = 0;  // number of resting jobs with cause `space`
  std::optional<std::vector<LayerId>> chosen_;  // nullopt after a change
  uid_t last_user_ = 0;
};

}  // namespace rekeyfs::replication
