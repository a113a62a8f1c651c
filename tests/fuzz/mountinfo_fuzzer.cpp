// /proc/self/mountinfo: text from the kernel with names that any user may have chosen.
#include "fs/mountinfo.h"

#include <algorithm>

#include "tests/fuzz/fuzz.h"

namespace rekeyfs {
namespace {

void try_input(ByteView bytes) {
  const std::string_view text = as_text(bytes);
  const auto mounts = fs::parse_mountinfo(text);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  require(mounts.size() <= lines, "no name makes a mount of its own");
  for (const fs::MountEntry& mount : mounts)
    require(!mount.mountpoint.empty() && !mount.type.empty(), "what is mounted has a place and a type");
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
