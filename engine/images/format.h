// Disk image formats, told by their magic numbers only: nothing else of an untrusted header is looked at here.
#pragma once

#include <string_view>

#include "engine/base/bytes.h"

namespace rekeyfs::images {

inline constexpr std::size_t kFormatHead = 512;  // bytes of the start that detect_format() wants
inline constexpr std::size_t kFormatTail = 512;  // and of the end (a fixed VHD has a footer only)

// QEMU's name of the format; "raw" if no magic number matches. Shorter spans are fine.
std::string_view detect_format(ByteView head, ByteView tail);
// Its name in the shared MIME database.
std::string_view mime_type_of(std::string_view format);

}  // namespace rekeyfs::images
