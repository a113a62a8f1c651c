// BootProfile: the parts of an image that its first boot read, in that order (Table::profile, key: layer), and its
// encoding.
//
// Only a hint: blocks that it names may be read earlier than necessary.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs::boot {

// A range in units of 16 KiB, the usual block size.
struct Run {
  std::uint32_t first = 0, count = 0;
  std::uint64_t end() const { return std::uint64_t{first} + count; }
  friend bool operator==(const Run&, const Run&) = default;
};

struct BootProfile {
  static constexpr std::uint64_t kUnit = 16384;               // in bytes
  static constexpr std::uint64_t kUnits = std::uint64_t{1} << 30;  // units of the largest image, 16 TiB
  static constexpr std::size_t kMaxRuns = 8192;              // 64 KiB on disk

  Timestamp recorded = 0;
  std::vector<Run> runs;  // not empty, without overlaps

  std::uint64_t bytes() const;
  std::string encode() const;
  static Result<BootProfile> decode(std::string_view bytes);
};

}  // namespace rekeyfs::boot
