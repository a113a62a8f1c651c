#include "tools/columns.h"

#include <cwchar>

#include <locale.h>

#include "engine/base/utf8.h"

namespace rekeyfs::tools {
namespace {

// Uses wcwidth(3) in its own locale, because the program sets none; terminals are assumed to use UTF-8.
std::size_t width_of(char32_t character) {
  static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", locale_t{});
  if (utf8 == locale_t{}) return 1;
  const locale_t before = ::uselocale(utf8);
  const int width = ::wcwidth(static_cast<wchar_t>(character));
  ::uselocale(before);
  return width < 0 ? 1 : static_cast<std::size_t>(width);
}

}  // namespace

std::size_t columns_of(std::string_view text) {
  std::size_t columns = 0;
  while (!text.empty()) {
    const CodePoint first = first_code_point(text);
    columns += width_of(first.value);
    text.remove_prefix(first.size);
  }
  return columns;
}

std::string fit(std::string_view text, std::size_t columns) {
  std::size_t have = columns_of(text);
  if (have <= columns) return std::string(text);
  if (columns == 0) return {};
  while (!text.empty()) {
    const CodePoint first = first_code_point(text);
    const std::size_t width = width_of(first.value);
    if (have < columns && width > 0) break;  // combining characters of a removed character are removed, too
    have -= width;
    text.remove_prefix(first.size);
  }
  return "…" + std::string(text);
}

std::string cut(std::string_view text, std::size_t columns) {
  std::size_t kept = 0;
  while (kept < text.size()) {
    const CodePoint next = first_code_point(text.substr(kept));
    const std::size_t width = width_of(next.value);
    if (width > columns) break;
    columns -= width;
    kept += next.size;
  }
  return std::string(text.substr(0, kept));
}

std::string pad(std::string text, std::size_t columns) {
  const std::size_t have = columns_of(text);
  if (have < columns) text.append(columns - have, ' ');
  return text;
}

std::string pad_left(std::string text, std::size_t columns) {
  const std::size_t have = columns_of(text);
  if (have < columns) text.insert(0, columns - have, ' ');
  return text;
}

}  // namespace rekeyfs::tools
