#include "fs/mountinfo.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

namespace rekeyfs::fs {
namespace {

bool is_octal(std::string_view digits) {
  return digits.size() == 3 && std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '7'; });
}

// Decodes blanks, tabs, line feeds and backslashes, which are written as \040 and so on.
std::string unescaped(std::string_view field) {
  std::string out;
  for (std::size_t i = 0; i < field.size(); ++i) {
    std::string_view digits = field.substr(std::min(i + 1, field.size()), 3);
    if (field[i] != '\\' || !is_octal(digits)) {
      out += field[i];
      continue;
    }
    out += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += 3;
  }
  return out;
}

}  // namespace

// Format: "36 35 98:0 /root /mountpoint options shared:1 - type source superoptions", with optional fields before the
// dash.
std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
    auto dash = std::find(fields.begin(), fields.end(), "-");
    if (fields.size() < 6 || std::distance(dash, fields.end()) < 3) continue;
    mounts.push_back({unescaped(fields[4]), unescaped(dash[1]), unescaped(dash[2]), fields[2], unescaped(fields[3])});
  }
  return mounts;
}

Result<std::vector<MountEntry>> list_mounts() {
  std::ifstream file("/proc/self/mountinfo");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) return fail(Errc::io, "/proc/self/mountinfo cannot be read; is /proc mounted?");
  return parse_mountinfo(text);
}

}  // namespace rekeyfs::fs
