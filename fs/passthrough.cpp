#include "fs/passthrough.h"

#include <cerrno>

#include <linux/fuse.h>
#include <sys/ioctl.h>

namespace rekeyfs::fs {
namespace {

// Missing in the headers of Debian 12: struct fuse_backing_map, the two ioctls that take it or its number, the flag of
// an open reply, and that reply with the number in former padding.
struct BackingMap {
  std::int32_t descriptor;
  std::uint32_t flags;
  std::uint64_t padding;
};
constexpr unsigned long kOpenBacking = _IOW(229, 1, BackingMap);
constexpr unsigned long kCloseBacking = _IOW(229, 2, std::uint32_t);
constexpr std::uint32_t kOpenedForPassthrough = 1U << 7;

struct OpenReply {
  std::uint64_t handle;
  std::uint32_t flags;
  std::int32_t backing;
};
static_assert(sizeof(OpenReply) == sizeof(fuse_open_out));

}  // namespace

Result<BackingFile> BackingFile::create(int device, int descriptor) {
  BackingMap map{.descriptor = descriptor, .flags = 0, .padding = 0};
  const int number = ::ioctl(device, kOpenBacking, &map);
  if (number <= 0) return fail(error_from_errno(errno, "register a file for FUSE passthrough"));
  return BackingFile(device, number);
}

BackingFile::~BackingFile() {
  std::uint32_t number = static_cast<std::uint32_t>(number_);
  if (number != 0) ::ioctl(device_, kCloseBacking, &number);
}

int reply_passthrough(fuse_req_t req, std::uint64_t handle, std::int32_t backing) {
  const OpenReply reply{.handle = handle, .flags = kOpenedForPassthrough, .backing = backing};
  return fuse_reply_buf(req, reinterpret_cast<const char*>(&reply), sizeof(reply));
}

}  // namespace rekeyfs::fs
