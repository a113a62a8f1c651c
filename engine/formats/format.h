// Format: the disk format of an image file, detected by magic numbers only: this process does not parse untrusted
// headers any further. Pure functions.
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

inline constexpr std::uint64_t kLargestDisk = std::uint64_t{16} << 40;  // bytes; larger disks are refused
inline constexpr std::size_t kFormatHead = 512;  // bytes at the start of the file that detect_format() needs
// Bytes at the end of the file that it needs (a fixed VHD has only a footer).
inline constexpr std::size_t kFormatTail = 512;

std::string_view name_of(Format format);  // QEMU's name of the format
// `raw` if no magic number matches. Shorter spans are allowed.
Format detect_format(ByteView head, ByteView tail);
Result<Format> detect_format(Content& file);
Result<Format> format_from_number(std::uint8_t number);
// The MIME type, in the shared MIME database, of the format that QEMU calls `name`.
std::string_view mime_type_of(std::string_view name);

}  // namespace rekeyfs::formats
