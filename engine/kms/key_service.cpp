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

}  // namespace rekeyfs::kms
