// Strong types for numbers that must not be mixed up.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace rekeyfs {

// A number of its own type: comparable with the same type only, convertible only by value().
template <typename Tag, typename Rep = std::uint64_t>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  constexpr explicit operator bool() const { return value_ != Rep{}; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;

 private:
  Rep value_{};
};

using Ino = StrongId<struct InoTag>;              // a node of the name space; 1: root, 0: none; never reused
using LayerId = StrongId<struct LayerTag>;        // 0: none; never reused
using BlockIndex = std::uint64_t;                 // index of a block in a layer, from 0
using EpochId = StrongId<struct EpochTag, std::uint32_t>;  // one mount of the store; 0: none

inline constexpr Ino kRootIno{1};

// 128 random bits, written as 32 hex digits (keys) or as an RFC 4122 version 4 UUID (images, stores).
using Uuid = std::array<std::byte, 16>;
std::string to_uuid_text(const Uuid& id);
std::string to_hex(std::span<const std::byte> bytes);

// Nanoseconds since 1970, the resolution of all stored times.
using Timestamp = std::int64_t;
Timestamp now();
std::string time_text(Timestamp time);  // RFC 3339 in UTC, to the nanosecond

}  // namespace rekeyfs

template <typename Tag, typename Rep>
struct std::hash<rekeyfs::StrongId<Tag, Rep>> {
  std::size_t operator()(rekeyfs::StrongId<Tag, Rep> id) const noexcept { return std::hash<Rep>{}(id.value()); }
};
