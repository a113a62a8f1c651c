#include "engine/formats/format.h"

#include <algorithm>
#include <array>
#include <string>

namespace rekeyfs::formats {
namespace {

using namespace std::string_view_literals;

struct Row {
  Format format;
  std::string_view name;
  std::string_view mime_type;  // of shared-mime-info 2.2; later versions keep these names, some as aliases
};

constexpr std::array kRows{
    Row{Format::raw, "raw", "application/x-raw-disk-image"},
    Row{Format::qcow2, "qcow2", "application/x-qemu-disk"},
    Row{Format::qcow, "qcow", "application/x-qemu-disk"},
    Row{Format::qed, "qed", "application/x-qed-disk"},
    Row{Format::vmdk, "vmdk", "application/x-vmdk-disk"},
    Row{Format::vpc, "vpc", "application/x-vhd-disk"},
    Row{Format::vhdx, "vhdx", "application/x-vhdx-disk"},
    Row{Format::vdi, "vdi", "application/x-vdi-disk"},
};

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  Format format;
};

// From the format specifications referenced by QEMU's block drivers.
constexpr std::array kMagics{
    Magic{0, "QFI\xfb\0\0\0\x02"sv, Format::qcow2},
    Magic{0, "QFI\xfb\0\0\0\x03"sv, Format::qcow2},
    Magic{0, "QFI\xfb\0\0\0\x01"sv, Format::qcow},
    Magic{0, "QED\0"sv, Format::qed},
    Magic{0, "KDMV"sv, Format::vmdk},
    Magic{0, "COWD"sv, Format::vmdk},
    Magic{0, "# Disk DescriptorFile"sv, Format::vmdk},
    Magic{0, "vhdxfile"sv, Format::vhdx},
    Magic{0, "conectix"sv, Format::vpc},
    Magic{64, "\x7f\x10\xda\xbe"sv, Format::vdi},
};

bool has(ByteView bytes, std::size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() && as_text(bytes.subspan(offset, magic.size())) == magic;
}

}  // namespace

std::string_view name_of(Format format) {
  for (const Row& row : kRows)
    if (row.format == format) return row.name;
  return kRows.front().name;
}

Format detect_format(ByteView head, ByteView tail) {
  for (const Magic& magic : kMagics)
    if (has(head, magic.offset, magic.bytes)) return magic.format;
  return has(tail, 0, "conectix") ? Format::vpc : Format::raw;
}

Result<Format> detect_format(Content& file) {
  std::array<std::byte, kFormatHead> head;
  std::array<std::byte, kFormatTail> tail;
  const std::uint64_t size = file.size();
  const ByteSpan start = ByteSpan(head).first(std::min<std::uint64_t>(size, head.size()));
  const ByteSpan end = ByteSpan(tail).first(std::min<std::uint64_t>(size, tail.size()));
  RK_TRY(file.read(0, start));
  RK_TRY(file.read(size - end.size(), end));
  return detect_format(ByteView(start), ByteView(end));
}

Result<Format> format_from_number(std::uint8_t number) {
  for (const Row& row : kRows)
    if (static_cast<std::uint8_t>(row.format) == number) return row.format;
  return fail(Errc::corrupt, "image format number " + std::to_string(number) + " is unknown");
}

std::string_view mime_type_of(std::string_view name) {
  for (const Row& row : kRows)
    if (row.name == name) return row.mime_type;
  return kRows.front().mime_type;
}

}  // namespace rekeyfs::formats
