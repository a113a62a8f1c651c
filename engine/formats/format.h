// Format: how an image file holds its disk, told by magic numbers only: nothing else of an untrusted header is looked
// at in this process. Pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/formats/content.h"

namespace rekeyfs::formats {

enum class Format : std::uint8_t {  // numbers on disk
  raw = 0,
  qcow2 = 1,
  qcow = 2,
  qed = 3,
  vmdk = 4,
  vpc = 5,
  vhdx = 6,
  vdi = 7,
};

inline constexpr std::uint64_t kLargestDisk = std::uint64_t{16} << 40;  // bytes; a larger one is not shown
inline constexpr std::size_t kFormatHead = 512;  // bytes of the start that detect_format() wants
inline constexpr std::size_t kFormatTail = 512;  // and of the end (a fixed VHD has a footer only)

std::string_view name_of(Format format);  // QEMU's name of it
// `raw` if no magic number matches. Shorter spans are fine.
Format detect_format(ByteView head, ByteView tail);
Result<Format> detect_format(Content& file);
Result<Format> format_from_number(std::uint8_t number);
// The name in the shared MIME database of the format that QEMU calls `name`.
std::string_view mime_type_of(std::string_view name);

}  // namespace rekeyfs::formats
