#include "fs/hot_memory.h"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

namespace rekeyfs::fs {
namespace {

constexpr std::uint64_t kHugePage = 2u << 20;  // x86-64
constexpr char kDoing[] = "create a file system in memory";

}  // namespace

HotFile::~HotFile() {
  if (!descriptor_) return;
  if (::ftruncate(descriptor_.get(), 0) != 0) {  // cannot fail: the file is not sealed, and size 0 needs no memory
  }
}

Status HotFile::write(std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return fail(error_from_errno(errno, "write to the memory for hot images"));
    offset += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<HotMemory> HotMemory::create(std::uint64_t bytes) {
  const Descriptor context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context) return fail(error_from_errno(errno, kDoing));
  const bool has_huge = ::fsconfig(context.get(), FSCONFIG_SET_STRING, "huge", "within_size", 0) == 0;
  const bool configured = ::fsconfig(context.get(), FSCONFIG_SET_STRING, "size", std::to_string(bytes).c_str(), 0) == 0 &&
                          ::fsconfig(context.get(), FSCONFIG_SET_FLAG, "noswap", nullptr, 0) == 0 &&
                          ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0;
  Descriptor root(configured ? ::fsmount(context.get(), FSMOUNT_CLOEXEC, 0) : -1);
  if (!root) return fail(error_from_errno(errno, kDoing));
  return HotMemory(std::move(root), has_huge ? kHugePage : kSmallPage);
}

Result<HotFile> HotMemory::make_file(std::uint64_t size) const {
  HotFile file(Descriptor(::openat(root_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)));
  if (file.descriptor() < 0) return fail(error_from_errno(errno, "create a file for a hot image"));
  if (::ftruncate(file.descriptor(), static_cast<off_t>(size)) != 0)
    return fail(error_from_errno(errno, "create a file for a hot image"));
  return file;
}

}  // namespace rekeyfs::fs
