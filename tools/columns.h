// Columns: the width of UTF-8 text on a terminal, and functions that fit text to a width. Wide characters (CJK, emoji)
// take two columns, combining ones none. The text must not contain control characters; see printable(). Thread-safe.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace rekeyfs::tools {

std::size_t columns_of(std::string_view text);
// Shortens to at most `columns`. fit() cuts at the front, because paths have common beginnings, and marks the cut with
// "…"; cut() cuts at the end.
std::string fit(std::string_view text, std::size_t columns);
std::string cut(std::string_view text, std::size_t columns);
// Pads with blanks up to `columns`: pad() at the end, pad_left() at the front.
std::string pad(std::string text, std::size_t columns);
std::string pad_left(std::string text, std::size_t columns);

}  // namespace rekeyfs::tools
