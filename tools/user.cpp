#include "tools/user.h"

#include <pwd.h>

#include <charconv>
#include <vector>

namespace rekeyfs::tools {
namespace {
constexpr std::size_t kEntryBytes = 16384;  // more than glibc's _SC_GETPW_R_SIZE_MAX, 1024
}

Outcome<uid_t> user_named(const std::string& name_or_number) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(kEntryBytes);
  if (getpwnam_r(name_or_number.c_str(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr) return found->pw_uid;
  uid_t number = 0;
  const char* const end = name_or_number.data() + name_or_number.size();
  if (const auto [rest, error] = std::from_chars(name_or_number.data(), end, number);
      error == std::errc{} && rest == end && number != static_cast<uid_t>(-1))
    return number;
  return fail(ExitCode::usage, "the user " + name_or_number + " does not exist: give a name from `getent passwd` or a user id");
}

}  // namespace rekeyfs::tools
