// AttributeRecord: an extended attribute set by a user (Table::attribute, key: node and hash of the name), and its
// encoding.
#pragma once

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::names {

struct AttributeRecord {
  std::string name;  // full name
  std::string value;

  std::string encode() const { return Writer().put_string(name).put_string(value).take(); }
  static Result<AttributeRecord> decode(std::string_view bytes) {
    Reader in(bytes);
    AttributeRecord attribute;
    attribute.name = in.get_string();
    attribute.value = in.get_string();
    if (!in.finished()) return fail(Errc::corrupt, "an extended attribute is malformed");
    return attribute;
  }
};

}  // namespace rekeyfs::names
