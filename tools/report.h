// Report: how the program says that a command failed.
#pragma once

#include "tools/outcome.h"

namespace rekeyfs::tools {

// "rekeyfs: SENTENCE" on stderr.
void report(const Failure& failure);

}  // namespace rekeyfs::tools
