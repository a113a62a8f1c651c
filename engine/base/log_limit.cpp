#include "engine/base/log_limit.h"

#include <algorithm>
#include <utility>

namespace rekeyfs::log {

std::optional<std::uint64_t> LogLimit::admit(const void* source, Clock::time_point now) {
  Lock lock(mutex_);
  Source& one = sources_.try_emplace(source, Source{now, 0}).first->second;
  const Clock::time_point full = std::max(one.full, now) + kInterval;
  if (full - now > kBurst * kInterval) {
    ++one.left_out;
    return std::nullopt;
  }
  one.full = full;
  return std::exchange(one.left_out, 0);
}

}  // namespace rekeyfs::log
