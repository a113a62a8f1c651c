// The format of an image, detected from its first and last bytes.
#include "engine/formats/format.h"
#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

// Half of the input is the image's start, half its end; an image shorter than either is both.
void try_input(ByteView bytes) {
  const std::size_t half = bytes.size() / 2;
  const formats::Format format = formats::detect_format(bytes.first(half), bytes.subspan(half));
  require(formats::format_from_number(static_cast<std::uint8_t>(format)) == format, "every image has a known format");
  require(!formats::mime_type_of(formats::name_of(format)).empty(), "every format has a MIME type");
  require(formats::detect_format(bytes.first(half), bytes.subspan(half)) == format,
          "the same bytes are the same format");
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
