#include "tools/human.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include <pwd.h>

namespace rekeyfs::tools {

std::string bytes_text(std::uint64_t bytes) {
  static constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  for (; value >= 1023.95 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string rate_text(double bytes_per_second) {
  if (!(bytes_per_second > 0)) return "-";
  return bytes_text(static_cast<std::uint64_t>(std::min(bytes_per_second, 1e18))) + "/s";
}

std::string duration_text(double seconds) {
  auto whole = static_cast<std::uint64_t>(std::clamp(std::ceil(seconds), 0.0, 1e9));
  char text[48];
  if (whole < 3600)
    std::snprintf(text, sizeof text, "%u:%02u", static_cast<unsigned>(whole / 60), static_cast<unsigned>(whole % 60));
  else
    std::snprintf(text, sizeof text, "%u:%02u:%02u", static_cast<unsigned>(whole / 3600),
                  static_cast<unsigned>(whole / 60 % 60), static_cast<unsigned>(whole % 60));
  return text;
}

std::string percent_text(double percent) {
  char text[32];
  // The small addend compensates rounding: 42.3 is stored as 42.29999….
  std::snprintf(text, sizeof text, "%.1f %%", std::floor(std::clamp(percent, 0.0, 100.0) * 10 + 1e-6) / 10);
  return text;
}

std::string moment_text(std::string_view rfc3339) {
  constexpr std::size_t kDate = 10, kToSeconds = 19;
  if (rfc3339.size() < kToSeconds) return std::string(rfc3339);
  return std::string(rfc3339.substr(0, kDate)) + " " + std::string(rfc3339.substr(kDate + 1, kToSeconds - kDate - 1)) +
         " UTC";
}

std::string local_moment_text(std::string_view rfc3339) {
  std::tm parts{};
  const std::string text(rfc3339);
  if (strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts) == nullptr) return text;
  const std::time_t clock = timegm(&parts);
  if (localtime_r(&clock, &parts) == nullptr) return text;
  char local[32];
  std::strftime(local, sizeof local, "%Y-%m-%d %H:%M:%S", &parts);
  return local;
}

std::string user_text(std::uint32_t uid) {
  std::array<char, 4096> buffer;
  passwd entry{};
  passwd* found = nullptr;
  getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
  return found != nullptr ? entry.pw_name : "uid " + std::to_string(uid);
}

std::string printable(std::string_view text) {
  std::string out(text);
  for (std::size_t i = 0; i < out.size(); ++i) {
    auto byte = static_cast<unsigned char>(out[i]);
    // U+0080 to U+009F are encoded as C2 80 to C2 9F; some terminals interpret them.
    bool c1 = byte == 0xc2 && i + 1 < out.size() && static_cast<unsigned char>(out[i + 1]) < 0xa0;
    if (c1) out.erase(i + 1, 1);
    if (c1 || byte < 0x20 || byte == 0x7f) out[i] = '?';
  }
  return out;
}

}  // namespace rekeyfs::tools
