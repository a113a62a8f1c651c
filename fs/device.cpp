#include "fs/device.h"

#include <cerrno>
#include <cstddef>
#include <cstring>

#include <linux/fuse.h>
#include <unistd.h>

#include "engine/base/log.h"

namespace rekeyfs::fs {
namespace {

// Set when a thread begins to serve a request, read while it does. Per thread, because a libfuse request has no member for it.
thread_local bool current_request_kills_privileges = false;

// The depth of stacked file systems: backing files must be on a file system that is not stacked. The headers of Debian
// 12 do not name this member of the answer yet.
constexpr std::uint32_t kStackDepth = 1;
constexpr std::size_t kStackDepthOffset = offsetof(fuse_init_out, flags2) + sizeof(fuse_init_out::flags2);

template <typename T>
bool load(T& out, ByteView request) {
  if (request.size() < sizeof(fuse_in_header) + sizeof(T)) return false;
  std::memcpy(&out, request.data() + sizeof(fuse_in_header), sizeof(T));
  return true;
}

bool asks_to_kill_privileges(std::uint32_t opcode, ByteView request) {
  switch (opcode) {
    case FUSE_WRITE: {
      fuse_write_in in;
      return load(in, request) && (in.write_flags & FUSE_WRITE_KILL_SUIDGID);
    }
    case FUSE_SETATTR: {
      fuse_setattr_in in;
      return load(in, request) && (in.valid & FATTR_KILL_SUIDGID);
    }
    case FUSE_OPEN: {
      fuse_open_in in;
      return load(in, request) && (in.open_flags & FUSE_OPEN_KILL_SUIDGID);
    }
    default:
      return false;
  }
}

}  // namespace

bool Device::request_kills_privileges() {
  return current_request_kills_privileges;
}

void Device::begin(ByteView request) {
  fuse_in_header header;
  if (request.size() < sizeof(header)) return;
  std::memcpy(&header, request.data(), sizeof(header));
  current_request_kills_privileges = asks_to_kill_privileges(header.opcode, request);
}

ssize_t Device::receive(int descriptor, void* buffer, std::size_t size) {
  const ssize_t got = ::read(descriptor, buffer, size);
  if (got < 0 && errno == ECONNABORTED) errno = ENODEV;  // an aborted session ends like an unmounted one
  if (got > 0) note_init({static_cast<const std::byte*>(buffer), static_cast<std::size_t>(got)});
  return got;
}

ssize_t Device::send(int descriptor, iovec* pieces, int count) {
  if (awaiting_init_reply_.load(std::memory_order_acquire)) extend_init_reply(pieces, count);
  return ::writev(descriptor, pieces, count);
}

void Device::note_init(ByteView request) {
  fuse_in_header header;
  if (request.size() < sizeof(header)) return;
  std::memcpy(&header, request.data(), sizeof(header));
  if (header.opcode != FUSE_INIT) return;
  init_request_ = header.unique;
  fuse_init_in in;
  if (load(in, request)) {  // an old kernel sends only the first members
    offered_ = in.flags;
    if (in.flags & FUSE_INIT_EXT) offered_ |= static_cast<std::uint64_t>(in.flags2) << 32;
  }
  awaiting_init_reply_.store(true, std::memory_order_release);
}

void Device::extend_init_reply(iovec* pieces, int count) {
  fuse_out_header header;
  fuse_init_out out;
  if (count != 2 || pieces[0].iov_len != sizeof(header) || pieces[1].iov_len != sizeof(out)) return;
  std::memcpy(&header, pieces[0].iov_base, sizeof(header));
  if (header.unique != init_request_ || header.error != 0) return;
  const std::uint64_t granted = offered_ & wanted_;
  std::memcpy(&out, pieces[1].iov_base, sizeof(out));
  out.flags |= static_cast<std::uint32_t>(granted);
  if (offered_ & FUSE_INIT_EXT) {
    out.flags |= FUSE_INIT_EXT;
    out.flags2 |= static_cast<std::uint32_t>(granted >> 32);
  }
  if (wanted_ & ~granted & kPassthrough) log::warn("the option hot has no effect: this kernel has no FUSE passthrough");
  std::memcpy(pieces[1].iov_base, &out, sizeof(out));
  if (granted & kPassthrough)
    std::memcpy(static_cast<std::byte*>(pieces[1].iov_base) + kStackDepthOffset, &kStackDepth, sizeof(kStackDepth));
  granted_.store(granted, std::memory_order_relaxed);
  awaiting_init_reply_.store(false, std::memory_order_release);
}

}  // namespace rekeyfs::fs
