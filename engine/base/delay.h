// Delay: text of spans of time that users give, as a number with one of the units s, m, h and d: "7d". Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/base/ids.h"

namespace rekeyfs {

inline constexpr Timestamp kDay = Timestamp{24} * 3600 * 1'000'000'000;

// In nanoseconds. nullopt for other text, and for more than a year.
std::optional<Timestamp> delay_from(std::string_view text);
// In the largest unit that gives a whole number; rounded up to seconds.
std::string delay_text(Timestamp delay);
// The same, rounded to the largest unit of which there are two or more.
std::string rough_delay_text(Timestamp delay);

}  // namespace rekeyfs
