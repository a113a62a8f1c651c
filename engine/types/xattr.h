// Xattr: an extended attribute; XattrMode: whether setxattr requires that the attribute exists.
#pragma once

#include <string>

namespace rekeyfs {

struct Xattr {
  std::string name;  // full name, "user.…"
  std::string value;
};

enum class XattrMode { either, create, replace };

}  // namespace rekeyfs
