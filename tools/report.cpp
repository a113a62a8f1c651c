#include "tools/report.h"

#include <cstdio>
#include <string>
#include <string_view>

#include "tools/human.h"

namespace rekeyfs::tools {

namespace {
constexpr std::string_view kItem = "\n  ";  // starts an item of a list in a message
}

void report(const Failure& failure) {
  std::string lines;
  for (std::size_t at = 0; at != std::string::npos;) {
    const std::size_t end = failure.message.find(kItem, at);
    if (at > 0) lines += kItem;
    lines += printable(failure.message.substr(at, end - at));
    at = end == std::string::npos ? end : end + kItem.size();
  }
  std::fprintf(stderr, "rekeyfs: %s\n", lines.c_str());
}

}  // namespace rekeyfs::tools
