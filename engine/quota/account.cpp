#include "engine/quota/account.h"

#include <algorithm>

namespace rekeyfs::quota {
namespace {

constexpr int kRestPerWalk = 10;  // times as long as the walk took
constexpr auto kShortWalk = std::chrono::milliseconds(20);

}  // namespace

void Account::set_limits(const names::Quota& limits) {
  Lock lock(mutex_);
  limits_ = limits;
}

names::Quota Account::limits() const {
  Lock lock(mutex_);
  return limits_;
}

// A change that adds nothing fits, also where a limit is exceeded already.
bool Account::fits(const Usage& used, const Usage& more) const {
  const auto within = [](std::uint64_t limit, std::uint64_t now, std::uint64_t added) {
    return limit == 0 || added == 0 || (now <= limit && added <= limit - now);
  };
  return within(limits_.bytes, used.bytes, more.bytes) && within(limits_.images, used.images, more.images);
}

bool Account::take(const Usage& more) {
  Lock lock(mutex_);
  Usage used = counted_;
  used += added_;
  used += under_way_;
  if (!fits(used, more)) return false;
  under_way_ += more;
  return true;
}

void Account::end(const Usage& more, bool was_made) {
  Lock lock(mutex_);
  under_way_ -= more;
  if (was_made) added_ += more;
}

bool Account::is_known_full(const Usage& more) const {
  Lock lock(mutex_);
  return known_ && !fits(counted_, more);
}

Usage Account::used() const {
  Lock lock(mutex_);
  Usage used = counted_;
  used += added_;
  return used;
}

Account::Walk Account::begin(std::uint64_t shifts) const {
  Lock lock(mutex_);
  return {Clock::now(), added_, shifts};
}

void Account::counted(const Walk& walk, const Usage& found) {
  Lock lock(mutex_);
  counted_ = found;
  added_ -= walk.forgotten;
  known_ = true;
  shifts_ = walk.shifts;
  began_ = walk.began;
  ended_ = Clock::now();
}

bool Account::was_walked_since(Clock::time_point time) const {
  Lock lock(mutex_);
  return known_ && began_ >= time;
}

bool Account::has_rested(Clock::duration most) const {
  Lock lock(mutex_);
  const Clock::duration took = ended_ - began_;
  return !known_ || took < kShortWalk || Clock::now() - ended_ >= std::min<Clock::duration>(most, took * kRestPerWalk);
}

bool Account::is_known() const {
  Lock lock(mutex_);
  return known_;
}

bool Account::is_outdated(std::uint64_t shifts) const {
  Lock lock(mutex_);
  return !known_ || shifts != shifts_;
}

}  // namespace rekeyfs::quota
