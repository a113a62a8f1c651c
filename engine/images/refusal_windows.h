// RefusalWindows: counts refusals of one kind together, so that a program that tries the same thing again and again, or
// one thing after the other, costs a few entries of the audit log and a few lines of the daemon's log.
//
// A user's window begins with a refusal and lasts a minute. In a window, the first refusal for each path and reason is
// recorded at once, up to kDistinct of them; all others are counted, and recorded when the window has ended: one event
// for each path and reason, and one for those beyond kDistinct. Not thread-safe.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/types/event.h"

namespace rekeyfs::images {

class RefusalWindows {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kLength = std::chrono::minutes(1);
  static constexpr std::size_t kDistinct = 20;  // per window
  static constexpr std::size_t kUsers = 1000;   // refusals of more users at a time are counted as those of kSeveralUsers

  // Whether to record the refusal now; otherwise it is counted.
  bool is_new(const Event& refusal, Clock::time_point now);
  // Ends the windows that are over, and returns what was counted in them.
  std::vector<Event> end(Clock::time_point now);
  std::vector<Event> end_all() { return end(Clock::time_point::max()); }
  std::optional<Clock::time_point> next_end() const;  // nullopt without a window

 private:
  using Reason = std::tuple<std::string, std::string, std::string>;  // path, source, text
  struct Repeats {
    void count(const Event& refusal);
    std::optional<Event> latest;  // nullopt: none; its `count` and `since` are those of all
  };
  struct Window {
    Clock::time_point end;
    std::map<Reason, Repeats> repeats;
    Repeats others;
  };

  std::map<uid_t, Window> windows_;
};

}  // namespace rekeyfs::images
