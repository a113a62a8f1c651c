// ImageState: the state of an image, as in user.rekeyfs.status.
#pragma once

#include <cstdint>
#include <string_view>

namespace rekeyfs {

enum class ImageState : std::uint8_t {  // numbers on disk
  creating = 1,
  normal_uninitialized = 2,
  normal = 3,
  replicating = 4,
  error = 5,
};

std::string_view name_of(ImageState state);

}  // namespace rekeyfs
