// Human: formats numbers, times and names for a terminal. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rekeyfs::tools {

std::string bytes_text(std::uint64_t bytes);        // "512 B", "1.5 GiB" (IEC)
std::string rate_text(double bytes_per_second);     // "12.0 MiB/s"; "-" if unknown
std::string duration_text(double seconds);          // "0:07", "12:34", "1:02:03"
std::string percent_text(double percent);           // "42.3 %", rounded down
std::string moment_text(std::string_view rfc3339);  // "2026-01-31 12:00:00 UTC", from the JSON form, which is in UTC
std::string local_moment_text(std::string_view rfc3339);  // "2026-01-31 13:00:00" in the local time zone
std::string user_text(std::uint32_t uid);                 // name; "uid 4711" for a user without one

// Replaces control characters by '?': other users choose names, and a terminal interprets control characters.
std::string printable(std::string_view text);

}  // namespace rekeyfs::tools
