// TargetChoice: what decides what a new image becomes.
#pragma once

#include <string>

namespace rekeyfs {

struct TargetChoice {
  enum class By { policy, plain, key };
  By by = By::policy;        // its key: that of its directory
  std::string key;           // alias or id, by key
  bool fast_create = false;  // it becomes the disk in its source, also where the directory does not say so
};

}  // namespace rekeyfs
