#include "engine/kms/key_info.h"

#include <algorithm>
#include <cctype>

namespace rekeyfs::kms {
namespace {
constexpr std::size_t kMaxAliasBytes = 128;
}

std::string_view name_of(KeyState state) {
  switch (state) {
    case KeyState::enabled:
      return "enabled";
    case KeyState::disabled:
      return "disabled";
    case KeyState::pending_deletion:
      return "pending-deletion";
  }
  return "unknown";
}

bool is_hex_id(std::string_view text) {
  return text.size() == 32 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

bool is_alias(std::string_view text) {
  constexpr std::string_view kAllowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !text.empty() && text.size() <= kMaxAliasBytes && text[0] != '-' && text[0] != '.' &&
         text.find_first_not_of(kAllowed) == std::string_view::npos && !is_hex_id(text);
}

Status check_enabled(const KeyInfo& key) {
  if (key.state == KeyState::enabled) return {};
  const std::string remedy = key.state == KeyState::disabled ? "enable" : "cancel-deletion";
  return fail(Errc::key_revoked, "key \"" + key.alias + "\" is " + std::string(name_of(key.state)) + ": `rekeyfs key " +
                                     remedy + " " + key.alias + " PATH` makes it usable again");
}

}  // namespace rekeyfs::kms
