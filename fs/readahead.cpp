#include "fs/readahead.h"

#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/base/log.h"

namespace rekeyfs::fs {

void raise_readahead(const std::string& device) {
  static constexpr char kKibibytes[] = "512";
  const std::string path = "/sys/class/bdi/" + device + "/read_ahead_kb";
  const Descriptor descriptor(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!descriptor) {
    log::debug("cannot raise readahead: open {}: {}", path, std::strerror(errno));
    return;
  }
  if (::write(descriptor.get(), kKibibytes, sizeof(kKibibytes) - 1) < 0)
    log::debug("cannot raise readahead: write {}: {}", path, std::strerror(errno));
}

}  // namespace rekeyfs::fs
