// Human: numbers, times and names as people read them on a terminal. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rekeyfs::tools {

std::string bytes_text(std::uint64_t bytes);        // "512 B", "1.5 GiB" (IEC)
std::string rate_text(double bytes_per_second);     // "12.0 MiB/s"; "-" if unknown
std::string duration_text(double seconds);          // "0:07", "12:34", "1:02:03"
std::string percent_text(double percent);           // "42.3 %", rounded down
std::string moment_text(std::string_view rfc3339);  // "2026-01-31 12:00:00 UTC", from JSON's form in UTC
std::string local_moment_text(std::string_view rfc3339);  // "2026-01-31 13:00:00" where the terminal is
std::string user_text(std::uint32_t uid);                 // name; "uid 4711" for one without

// The name with control characters replaced by '?': names are other users' making, and a terminal obeys them.
std::string printable(std::string_view text);

}  // namespace rekeyfs::tools
