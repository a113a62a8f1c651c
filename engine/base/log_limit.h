// LogLimit: bounds how many lines each source may add to the log, so that a user who provokes errors cannot fill the disk
// that has the log.
//
// A source is a call in the program, known by its format string. It may write kBurst lines at once and then one in each
// kInterval. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>

#include "engine/base/mutex.h"

namespace rekeyfs::log {

class LogLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr unsigned kBurst = 50;
  static constexpr Clock::duration kInterval = std::chrono::seconds(1);

  // How many lines of the source were left out since its last one; nullopt if this one is left out, too.
  std::optional<std::uint64_t> admit(const void* source, Clock::time_point now) EXCLUDES(mutex_);

 private:
  struct Source {
    Clock::time_point full;  // when it may write kBurst lines again
    std::uint64_t left_out = 0;
  };

  Mutex mutex_;
  std::map<const void*, Source> sources_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::log
