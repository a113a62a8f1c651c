// LaterFields: the fields that later versions of this program have added to a record; kept unchanged.
//
// An extensible record begins with a byte below 128, the layout of version 1, and ends with any number of fields added
// by later versions: each is a tag (u8) and a string. A program that does not know a tag writes the field back with
// every change of the record. A record takes out the fields that it knows, and writes them itself, before the others.
// A first byte of 128 or more marks another layout, which only newer programs can read.
#pragma once

#include <optional>
#include <string>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs {

class LaterFields {
 public:
  // Reads the rest of the record. If it is not a sequence of fields, the reader becomes bad or has bytes left.
  void get(Reader& in) {
    Writer fields;
    while (in.ok() && in.left() > 0) {
      const auto tag = in.get<std::uint8_t>();
      fields.put(tag).put_string(in.get_string());
    }
    bytes_ = fields.take();
  }
  void put(Writer& out) const { out.put_raw(as_bytes(bytes_)); }
  // Removes the fields with that tag and returns the last one.
  std::optional<std::string> take(std::uint8_t wanted) {
    std::optional<std::string> taken;
    Writer others;
    Reader in(bytes_);
    while (in.ok() && in.left() > 0) {
      const auto tag = in.get<std::uint8_t>();
      std::string field = in.get_string();
      if (tag == wanted) taken = std::move(field);
      else others.put(tag).put_string(field);
    }
    if (taken) bytes_ = others.take();
    return taken;
  }
  static void put_field(Writer& out, std::uint8_t tag, std::string_view field) { out.put(tag).put_string(field); }
  bool empty() const { return bytes_.empty(); }

 private:
  std::string bytes_;
};

// Errc::wrong_version if the record has another layout.
inline Status check_layout(std::string_view record) {
  constexpr unsigned kOtherLayout = 128;
  if (record.empty() || static_cast<unsigned char>(record[0]) < kOtherLayout) return {};
  return fail(Errc::wrong_version, "a record was written by a later version of rekeyfs: use that version");
}

}  // namespace rekeyfs
