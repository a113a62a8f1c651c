// Columns: how much room UTF-8 text takes on a terminal, and text that is made to fit. Wide characters (CJK, emoji) take
// two columns, combining ones none. For text without control characters, as printable() returns it. Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace rekeyfs::tools {

std::size_t columns_of(std::string_view text);
// At most `columns` of it. fit() cuts at the front, where paths are alike, and marks that with "…"; cut() at the end.
std::string fit(std::string_view text, std::size_t columns);
std::string cut(std::string_view text, std::size_t columns);
// Followed (or, on the right, preceded) by blanks up to `columns`.
std::string pad(std::string text, std::size_t columns);
std::string pad_left(std::string text, std::size_t columns);

}  // namespace rekeyfs::tools
