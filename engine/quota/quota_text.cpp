#include "engine/quota/quota_text.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <limits>

namespace rekeyfs::quota {
namespace {

constexpr std::string_view kUnits = "KMGTP";
constexpr std::string_view kBytes = "bytes=", kImages = "images=";

tl::unexpected<Error> malformed() {
  return fail(Errc::invalid, "a quota is \"bytes=10G,images=500\" or one of the two: whole numbers above 0, and for bytes "
                             "one of the units K, M, G, T and P");
}

Result<std::uint64_t> parse_number(std::string_view text, bool may_have_unit) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error != std::errc{} || number == 0 || unit.size() > (may_have_unit ? 1 : 0)) return malformed();
  if (unit.empty()) return number;
  const std::size_t power = kUnits.find(unit[0]);
  if (power == std::string_view::npos) return malformed();
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (number > std::numeric_limits<std::uint64_t>::max() >> shift) return malformed();
  return number << shift;
}

Status parse_limit(std::string_view text, names::Quota& quota) {
  const bool is_bytes = text.starts_with(kBytes);
  if (!is_bytes && !text.starts_with(kImages)) return malformed();
  std::uint64_t& limit = is_bytes ? quota.bytes : quota.images;
  if (limit != 0) return malformed();  // given twice
  RK_TRY_ASSIGN(limit, parse_number(text.substr(is_bytes ? kBytes.size() : kImages.size()), is_bytes));
  return {};
}

}  // namespace

Result<names::Quota> parse(std::string_view text) {
  names::Quota quota;
  const std::size_t comma = text.find(',');
  RK_TRY(parse_limit(text.substr(0, comma), quota));
  if (comma != std::string_view::npos) RK_TRY(parse_limit(text.substr(comma + 1), quota));
  return quota;
}

std::string text_of(const names::Quota& quota) {
  std::string text;
  if (quota.bytes > 0) {
    std::uint64_t number = quota.bytes;
    std::size_t power = 0;
    for (; power < kUnits.size() && number % 1024 == 0; ++power) number /= 1024;
    text += std::string(kBytes) + std::to_string(number);
    if (power > 0) text += kUnits[power - 1];
  }
  if (quota.images > 0) text += (text.empty() ? "" : ",") + std::string(kImages) + std::to_string(quota.images);
  return text;
}

std::string text_of(const Usage& usage) {
  return std::string(kBytes) + std::to_string(usage.bytes) + "," + std::string(kImages) + std::to_string(usage.images);
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::array kNames{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double size = static_cast<double>(bytes);
  std::size_t power = 0;
  for (; size >= 1024 && power + 1 < kNames.size(); ++power) size /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, power == 0 ? "%.0f %s" : "%.1f %s", size, kNames[power]);
  return text;
}

}  // namespace rekeyfs::quota
