#include "engine/base/ids.h"

#include <cstdio>
#include <ctime>

namespace rekeyfs {

std::string to_hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (std::byte b : bytes) {
    text += kDigits[std::to_integer<unsigned>(b) >> 4];
    text += kDigits[std::to_integer<unsigned>(b) & 15];
  }
  return text;
}

std::string to_uuid_text(const Uuid& id) {
  std::string text = to_hex(id);
  for (std::size_t at : {20, 16, 12, 8}) text.insert(at, 1, '-');
  return text;
}

Timestamp now() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<Timestamp>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

std::string time_text(Timestamp time) {
  constexpr Timestamp kSecond = 1'000'000'000;
  Timestamp seconds = time / kSecond, rest = time % kSecond;
  if (rest < 0) {
    rest += kSecond;
    --seconds;
  }
  const std::time_t clock = seconds;
  std::tm parts{};
  gmtime_r(&clock, &parts);
  char date[32], fraction[16];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(fraction, sizeof fraction, ".%09dZ", static_cast<int>(rest));
  return std::string(date) + fraction;
}

}  // namespace rekeyfs
