// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Pure functions.
#pragma once

#include <cstddef>
#include <string_view>

namespace rekeyfs {

struct CodePoint {
  char32_t value;
  std::size_t size;  // bytes
  bool valid;        // else U+FFFD for one byte that begins no code point
};
// What `text` begins with; it is not empty.
CodePoint first_code_point(std::string_view text);

bool is_utf8(std::string_view text);

}  // namespace rekeyfs
