#include "engine/store/store_clock.h"

#include <algorithm>
#include <ctime>

namespace rekeyfs::store {
namespace {

constexpr Timestamp kSecond = 1'000'000'000;
constexpr Timestamp kTolerance = 60 * kSecond;  // corrections by less, as by NTP, are no jumps

Timestamp read(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<Timestamp>(time.tv_sec) * kSecond + time.tv_nsec;
}

const std::string& record_key() {
  static const std::string key = catalog::make_key(catalog::Table::clock);
  return key;
}

}  // namespace

StoreClock::Reading StoreClock::read_system() { return {now(), read(CLOCK_BOOTTIME)}; }

Status StoreClock::load() {
  RK_TRY_ASSIGN(const auto record, catalog_.get(record_key()));
  Lock lock(mutex_);
  last_ = source_();
  if (!record) return {};
  Reader in(*record);
  time_ = in.get_time();
  const Timestamp seen = in.get_time();
  if (!in.finished()) return fail(Errc::corrupt, "the record of the store's clock is malformed: run `rekeyfs check`");
  gap_ = last_.wall - seen;
  if (gap_ < -kTolerance) jump_ = Jump{seen, last_.wall};
  return {};
}

Status StoreClock::save() {
  Writer record;
  {
    Lock lock(mutex_);
    advance();
    record.put_time(time_).put_time(last_.wall);
  }
  catalog::WriteTxn txn(catalog_);
  txn.put(record_key(), record.take());
  RK_TRY(txn.commit());
  return {};
}

Timestamp StoreClock::store_time() {
  Lock lock(mutex_);
  advance();
  return time_;
}

Timestamp StoreClock::wall_time() {
  Lock lock(mutex_);
  advance();
  return last_.wall;
}

std::optional<StoreClock::Jump> StoreClock::take_jump() {
  Lock lock(mutex_);
  advance();
  return std::exchange(jump_, std::nullopt);
}

Timestamp StoreClock::gap() const {
  Lock lock(mutex_);
  return gap_;
}

void StoreClock::advance() {
  const Reading read = source_();
  const Timestamp by_wall = read.wall - last_.wall, by_boot = std::max<Timestamp>(read.boot - last_.boot, 0);
  if (by_wall - by_boot > kTolerance || by_boot - by_wall > kTolerance)
    jump_ = Jump{(jump_ ? jump_->expected : last_.wall) + by_boot, read.wall};
  time_ += std::clamp<Timestamp>(by_wall, 0, by_boot);
  last_ = read;
}

}  // namespace rekeyfs::store
