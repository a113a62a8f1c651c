#include "engine/base/delay.h"

#include <array>
#include <charconv>

namespace rekeyfs {
namespace {

constexpr Timestamp kSecond = 1'000'000'000;
constexpr Timestamp kMost = 366 * kDay;

struct Unit {
  char name;
  Timestamp size;
};
constexpr std::array kUnits{Unit{'d', kDay}, Unit{'h', 3600 * kSecond}, Unit{'m', 60 * kSecond}, Unit{'s', kSecond}};

}  // namespace

std::optional<Timestamp> delay_from(std::string_view text) {
  Timestamp number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end + 1 != text.data() + text.size() || text.front() == '-') return std::nullopt;
  for (const Unit& unit : kUnits)
    if (unit.name == *end && number <= kMost / unit.size) return number * unit.size;
  return std::nullopt;
}

std::string delay_text(Timestamp delay) {
  const Timestamp seconds = (delay + kSecond - 1) / kSecond * kSecond;
  for (const Unit& unit : kUnits)
    if (seconds >= unit.size && seconds % unit.size == 0) return std::to_string(seconds / unit.size) + unit.name;
  return "0s";
}

std::string rough_delay_text(Timestamp delay) {
  for (const Unit& unit : kUnits)
    if (delay >= 2 * unit.size) return std::to_string((delay + unit.size / 2) / unit.size) + unit.name;
  return delay_text(delay);
}

}  // namespace rekeyfs
