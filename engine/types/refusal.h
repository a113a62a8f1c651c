// Refusal: a copy that a rule refused, for `status`.
#pragma once

#include <string>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace rekeyfs {

struct Refusal {
  Timestamp time = 0;
  std::string path;    // of the target
  std::string source;
  std::string rule;    // the rule, as a sentence
  Errc code = Errc::invalid;
  uid_t uid = 0;
  std::uint64_t count = 1;  // how many this one stands for
};

}  // namespace rekeyfs
