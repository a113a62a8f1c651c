// TargetChoice: what determines the key and the form of a new image.
#pragma once

#include <string>

namespace rekeyfs {

struct TargetChoice {
  enum class By { policy, plain, key };
  By by = By::policy;        // policy: the key of its directory
  std::string key;           // alias or id, if `by` is key
  bool fast_create = false;  // it becomes the disk in its source, regardless of the directory's policy
};

}  // namespace rekeyfs
