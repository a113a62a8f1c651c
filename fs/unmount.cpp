#include "fs/unmount.h"

#include <unistd.h>

#include "fs/program.h"

namespace rekeyfs::fs {

bool unmount_if_unused(const std::string& mountpoint) {
  if (::geteuid() == 0 && run({"umount", "--internal-only", "--", mountpoint.c_str()})) return true;
  return run({"fusermount3", "-u", "--", mountpoint.c_str()});
}

void write_back(const std::string& mountpoint) {
  run({"sync", "--file-system", "--", mountpoint.c_str()});
}

}  // namespace rekeyfs::fs
