#include "fs/unmount.h"

#include <algorithm>
#include <cstddef>

#include <unistd.h>

#include "fs/program.h"

namespace rekeyfs::fs {
namespace {

constexpr std::size_t kMostAtOnce = 256;  // of the longest paths they are 1 MiB, half of what a command line may have

}  // namespace

bool unmount_if_unused(const std::string& mountpoint) {
  if (::geteuid() == 0 && run({"umount", "--internal-only", "--", mountpoint})) return true;
  return run({"fusermount3", "-u", "--", mountpoint});
}

void write_back(const std::string& mountpoint, std::vector<std::string> images) {
  run({"sync", "--file-system", "--", mountpoint});
  while (!images.empty()) {
    const auto first = images.end() - static_cast<std::ptrdiff_t>(std::min(images.size(), kMostAtOnce));
    std::vector<std::string> command{"sync", "--"};
    for (auto image = first; image != images.end(); ++image) command.push_back(mountpoint + *image);
    run(command);
    images.erase(first, images.end());
  }
}

}  // namespace rekeyfs::fs
