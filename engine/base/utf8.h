// UTF-8 according to RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. Pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace rekeyfs {

struct CodePoint {
  char32_t value;
  std::size_t size;  // bytes
  bool valid;        // false: one byte that begins no code point, decoded as U+FFFD
};
// Decodes the first code point of `text`, which must not be empty.
CodePoint first_code_point(std::string_view text);

bool is_utf8(std::string_view text);

}  // namespace rekeyfs
