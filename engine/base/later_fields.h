// LaterFields: what later versions of this program have added to a record, kept as it is.
//
// A record that can grow begins with a byte below 128, the layout of version 1, and ends with any number of fields that
// later versions added: each a tag (u8) and a string. A program that does not know a tag writes the field back with
// every change of the record. A first byte of 128 or more is another layout, which only its own version may read.
#pragma once

#include <string>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs {

class LaterFields {
 public:
  // All that is left. The reader is bad, or has something left, if that is no sequence of fields.
  void get(Reader& in) {
    Writer fields;
    while (in.ok() && in.left() > 0) {
      const auto tag = in.get<std::uint8_t>();
      fields.put(tag).put_string(in.get_string());
    }
    bytes_ = fields.take();
  }
  void put(Writer& out) const { out.put_raw(as_bytes(bytes_)); }
  bool empty() const { return bytes_.empty(); }

 private:
  std::string bytes_;
};

// Errc::wrong_version for a record of another layout.
inline Status check_layout(std::string_view record) {
  constexpr unsigned kOtherLayout = 128;
  if (record.empty() || static_cast<unsigned char>(record[0]) < kOtherLayout) return {};
  return fail(Errc::wrong_version, "a record was written by a later version of rekeyfs: use that version");
}

}  // namespace rekeyfs
