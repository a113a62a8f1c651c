#include "engine/images/format.h"

#include <array>

namespace rekeyfs::images {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  std::string_view format;
};

// From the format specifications that QEMU's block drivers name.
constexpr std::array kMagics{
    Magic{0, "QFI\xfb\0\0\0\x02"sv, "qcow2"}, Magic{0, "QFI\xfb\0\0\0\x03"sv, "qcow2"},
    Magic{0, "QFI\xfb\0\0\0\x01"sv, "qcow"},  Magic{0, "QED\0"sv, "qed"},
    Magic{0, "KDMV"sv, "vmdk"},                 Magic{0, "COWD"sv, "vmdk"},
    Magic{0, "# Disk DescriptorFile"sv, "vmdk"}, Magic{0, "vhdxfile"sv, "vhdx"},
    Magic{0, "conectix"sv, "vpc"},              Magic{64, "\x7f\x10\xda\xbe"sv, "vdi"},
};

bool has(ByteView bytes, std::size_t offset, std::string_view magic) {
  return bytes.size() >= offset + magic.size() && as_text(bytes.subspan(offset, magic.size())) == magic;
}

struct MimeType {
  std::string_view format;
  std::string_view type;
};

// As of shared-mime-info 2.2; later ones keep these names, some as aliases.
constexpr std::array kMimeTypes{
    MimeType{"qcow2", "application/x-qemu-disk"}, MimeType{"qcow", "application/x-qemu-disk"},
    MimeType{"qed", "application/x-qed-disk"},    MimeType{"vmdk", "application/x-vmdk-disk"},
    MimeType{"vhdx", "application/x-vhdx-disk"},  MimeType{"vpc", "application/x-vhd-disk"},
    MimeType{"vdi", "application/x-vdi-disk"},
};

}  // namespace

std::string_view mime_type_of(std::string_view format) {
  for (const MimeType& row : kMimeTypes)
    if (row.format == format) return row.type;
  return "application/x-raw-disk-image";
}

std::string_view detect_format(ByteView head, ByteView tail) {
  for (const Magic& magic : kMagics)
    if (has(head, magic.offset, magic.bytes)) return magic.format;
  if (has(tail, 0, "conectix")) return "vpc";
  return "raw";
}

}  // namespace rekeyfs::images
