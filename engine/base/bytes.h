// Bytes: views of bytes, and the only encoding of numbers and strings on disk.
//
// Integers are little-endian; numbers in keys of ordered tables are big-endian (put_be64). A string is its length (u32)
// and its bytes. A Reader never reads past its end: the first value that does not fit makes it bad, and all later
// values are zero, so a parser checks ok() once, at its end.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace rekeyfs {

using ByteView = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Appends values to its own string (records are std::string so that they can be map keys and values).
class Writer {
 public:
  template <std::unsigned_integral T>
  Writer& put(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
    return *this;
  }
  Writer& put_be64(std::uint64_t value) {
    for (int shift = 56; shift >= 0; shift -= 8) out_.push_back(static_cast<char>(value >> shift));
    return *this;
  }
  Writer& put_time(std::int64_t value) { return put(static_cast<std::uint64_t>(value)); }
  Writer& put_raw(ByteView bytes) {
    out_.append(as_text(bytes));
    return *this;
  }
  Writer& put_string(std::string_view text) {
    put(static_cast<std::uint32_t>(text.size()));
    out_.append(text);
    return *this;
  }
  std::string take() { return std::move(out_); }
  const std::string& text() const { return out_; }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(ByteView in) : in_(in) {}
  explicit Reader(std::string_view in) : in_(as_bytes(in)) {}

  template <std::unsigned_integral T>
  T get() {
    T value = 0;
    ByteView raw = get_raw(sizeof(T));
    for (std::size_t i = 0; i < raw.size(); ++i)
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(std::to_integer<std::uint8_t>(raw[i])) << (8 * i)));
    return value;
  }
  std::uint64_t get_be64() {
    std::uint64_t value = 0;
    for (std::byte b : get_raw(8)) value = value << 8 | std::to_integer<std::uint8_t>(b);
    return value;
  }
  // A boolean as in rekeyfs-format(5): any byte other than 0 or 1 makes the reader bad.
  bool get_flag() {
    const auto value = get<std::uint8_t>();
    if (value > 1) {
      bad_ = true;
      in_ = {};
    }
    return value == 1;
  }
  std::int64_t get_time() { return static_cast<std::int64_t>(get<std::uint64_t>()); }
  ByteView get_raw(std::size_t size) {
    if (size > in_.size()) {
      bad_ = true;
      in_ = {};
      return {};
    }
    ByteView out = in_.first(size);
    in_ = in_.subspan(size);
    return out;
  }
  template <std::size_t N>
  void get_into(std::array<std::byte, N>& out) {
    ByteView raw = get_raw(N);
    if (raw.size() == N) std::memcpy(out.data(), raw.data(), N);
  }
  std::string get_string() { return std::string(as_text(get_raw(get<std::uint32_t>()))); }
  std::size_t left() const { return in_.size(); }
  bool ok() const { return !bad_; }
  // True if all values fitted and nothing is left over.
  bool finished() const { return !bad_ && in_.empty(); }

 private:
  ByteView in_;
  bool bad_ = false;
};

}  // namespace rekeyfs
