#include "fs/unmount.h"

#include <algorithm>
#include <cstddef>

#include <unistd.h>

#include "fs/program.h"

namespace rekeyfs::fs {
namespace {

constexpr std::size_t kMaxAtOnce = 256;  // with the longest paths 1 MiB, half of the maximum command line

}  // namespace

bool unmount_if_unused(const std::string& mountpoint) {
  if (::geteuid() == 0 && run({"umount", "--internal-only", "--", mountpoint})) return true;
  return run({"fusermount3", "-u", "--", mountpoint});
}

void write_back(const std::string& mountpoint, const std::vector<std::string>& images) {
  run({"sync", "--file-system", "--", mountpoint});
  for (std::size_t first = 0; first < images.size(); first += kMaxAtOnce) {
    std::vector<std::string> command{"sync", "--"};
    for (std::size_t i = first; i < std::min(images.size(), first + kMaxAtOnce); ++i) command.push_back(mountpoint + images[i]);
    run(command);
  }
}

}  // namespace rekeyfs::fs
