#include "engine/base/utf8.h"

namespace rekeyfs {
namespace {

constexpr CodePoint kInvalid{U'\uFFFD', 1, false};

unsigned byte_at(std::string_view text, std::size_t index) { return static_cast<unsigned char>(text[index]); }

struct Form {
  std::size_t size;
  unsigned payload;  // mask of the payload bits of the first byte
  char32_t least;    // a smaller value is overlong
};

Form form_of(unsigned lead) {
  if ((lead & 0xe0) == 0xc0) return {2, 0x1f, 0x80};
  if ((lead & 0xf0) == 0xe0) return {3, 0x0f, 0x800};
  if ((lead & 0xf8) == 0xf0) return {4, 0x07, 0x10000};
  return {0, 0, 0};
}

bool is_scalar(char32_t value) { return value <= 0x10ffff && (value < 0xd800 || value > 0xdfff); }

}  // namespace

CodePoint first_code_point(std::string_view text) {
  const unsigned lead = byte_at(text, 0);
  if (lead < 0x80) return {lead, 1, true};
  const Form form = form_of(lead);
  if (form.size == 0 || text.size() < form.size) return kInvalid;
  char32_t value = lead & form.payload;
  for (std::size_t i = 1; i < form.size; ++i) {
    if ((byte_at(text, i) & 0xc0) != 0x80) return kInvalid;
    value = value << 6 | (byte_at(text, i) & 0x3f);
  }
  return value >= form.least && is_scalar(value) ? CodePoint{value, form.size, true} : kInvalid;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const CodePoint first = first_code_point(text);
    if (!first.valid) return false;
    text.remove_prefix(first.size);
  }
  return true;
}

}  // namespace rekeyfs
