// Report: prints the error message of a failed command.
#pragma once

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Prints "rekeyfs: SENTENCE" to stderr; a list in it is printed with one line per item.
void report(const Failure& failure);

}  // namespace rekeyfs::tools
