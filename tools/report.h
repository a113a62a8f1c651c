// Report: how the program says that a command failed.
#pragma once

#include "tools/outcome.h"

namespace rekeyfs::tools {

// "rekeyfs: SENTENCE" on stderr; a list in it has a line for each item.
void report(const Failure& failure);

}  // namespace rekeyfs::tools
