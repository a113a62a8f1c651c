// Xattr: an extended attribute; XattrMode: what setxattr requires of one that exists.
#pragma once

#include <string>

namespace rekeyfs {

struct Xattr {
  std::string name;  // whole, "user.…"
  std::string value;
};

enum class XattrMode { either, create, replace };

}  // namespace rekeyfs
