#include "engine/types/image_state.h"

namespace rekeyfs {

std::string_view name_of(ImageState state) {
  switch (state) {
    case ImageState::creating: return "creating";
    case ImageState::normal_uninitialized: return "normal-uninitialized";
    case ImageState::normal: return "normal";
    case ImageState::replicating: return "replicating";
    case ImageState::error: return "error";
  }
  return "unknown";
}

}  // namespace rekeyfs
