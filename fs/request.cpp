#include "fs/request.h"

#include <cstring>

#include <fcntl.h>
#include <linux/fuse.h>

namespace rekeyfs::fs {
namespace {

template <typename T>
T argument_of(ByteView request) {
  T argument{};
  if (request.size() >= sizeof(fuse_in_header) + sizeof(T))
    std::memcpy(&argument, request.data() + sizeof(fuse_in_header), sizeof(T));
  return argument;
}

RequestHead::Kind kind_of(std::uint32_t opcode, ByteView request) {
  using Kind = RequestHead::Kind;
  switch (opcode) {
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_COPY_FILE_RANGE:
      return Kind::content;
    case FUSE_OPEN:
      return argument_of<fuse_open_in>(request).flags & O_TRUNC ? Kind::content : Kind::prompt;
    case FUSE_SETATTR:
      return argument_of<fuse_setattr_in>(request).valid & FATTR_SIZE ? Kind::content : Kind::prompt;
    case FUSE_IOCTL:
      return Kind::command;
    default:
      return Kind::prompt;
  }
}

}  // namespace

RequestHead head_of(ByteView request) {
  fuse_in_header header;
  if (request.size() < sizeof(header)) return {};
  std::memcpy(&header, request.data(), sizeof(header));
  return {.kind = kind_of(header.opcode, request), .user = header.uid};
}

}  // namespace rekeyfs::fs
