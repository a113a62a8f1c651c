#include "tools/report.h"

#include <cstdio>

#include "tools/human.h"

namespace rekeyfs::tools {

void report(const Failure& failure) {
  std::fprintf(stderr, "rekeyfs: %s\n", printable(failure.message).c_str());
}

}  // namespace rekeyfs::tools
