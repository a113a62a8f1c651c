#include "engine/kms/key_service.h"

namespace rekeyfs::kms {

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

Status check_enabled(const KeyInfo& key) {
  if (key.state == KeyState::enabled) return {};
  const std::string remedy = key.state == KeyState::disabled ? "enable" : "cancel-deletion";
  return fail(Errc::key_revoked, "key \"" + key.alias + "\" is " + std::string(name_of(key.state)) + ": `rekeyfs key " +
                                     remedy + " " + key.alias + " PATH` makes it usable again");
}

}  // namespace rekeyfs::kms
