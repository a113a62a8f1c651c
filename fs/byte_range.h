// ByteRange: a range of an image's content.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace rekeyfs::fs {

struct ByteRange {
  static constexpr std::uint64_t kToTheEnd = std::numeric_limits<std::int64_t>::max();

  std::uint64_t begin = 0, end = 0;  // in bytes; empty if they are equal

  bool is_empty() const { return begin >= end; }
  bool meets(const ByteRange& other) const { return std::max(begin, other.begin) < std::min(end, other.end); }
  bool covers(const ByteRange& other) const { return other.is_empty() || (begin <= other.begin && other.end <= end); }
  // The smallest range that contains both.
  ByteRange with(const ByteRange& other) const {
    if (is_empty()) return other;
    return other.is_empty() ? *this : ByteRange{std::min(begin, other.begin), std::max(end, other.end)};
  }
};

}  // namespace rekeyfs::fs
