#include "engine/formats/disk_connection.h"

#include <libnbd.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace rekeyfs::formats {
namespace {

constexpr const char* kAllocation = LIBNBD_CONTEXT_BASE_ALLOCATION;
constexpr nbd_completion_callback kNoCallback{};

// libnbd has already stored the bytes in the buffer.
int accept_chunk(void*, const void*, std::size_t, std::uint64_t, unsigned, int*) { return 0; }

Error nbd_error(std::string_view doing) {
  const char* const reason = ::nbd_get_error();
  return Error{Errc::io, std::string(doing) + ": " + (reason != nullptr ? reason : "the connection to the format reader broke")};
}

// Keeps the first extent reported.
int keep_first(void* user, const char*, std::uint64_t, std::uint32_t* entries, std::size_t count, int*) {
  auto& extent = *static_cast<Extent*>(user);
  if (extent.length == 0 && count >= 2) extent = {.length = entries[0], .zeros = (entries[1] & LIBNBD_STATE_ZERO) != 0};
  return 0;
}

}  // namespace

void DiskConnection::Close::operator()(nbd_handle* handle) const { ::nbd_close(handle); }

Result<std::unique_ptr<DiskConnection>> DiskConnection::open(Descriptor socket, Deadline deadline) {
  auto connection = std::make_unique<DiskConnection>();
  connection->handle_.reset(::nbd_create());
  nbd_handle* const handle = connection->handle_.get();
  if (handle == nullptr) return fail(nbd_error("prepare to read a disk"));
  // QEMU accepts unaligned reads, whatever alignment it prefers.
  const std::uint32_t strict = ::nbd_get_strict_mode(handle) & ~LIBNBD_STRICT_ALIGN;
  if (::nbd_set_export_name(handle, "disk") != 0 || ::nbd_add_meta_context(handle, kAllocation) != 0 ||
      ::nbd_set_strict_mode(handle, strict) != 0 || ::nbd_set_pread_initialize(handle, false) != 0 ||
      ::nbd_aio_connect_socket(handle, socket.release()) != 0)  // closes the socket, also on failure
    return fail(nbd_error("connect to the format reader"));
  while (::nbd_aio_is_ready(handle) == 0) {
    if (!connection->is_usable()) return fail(nbd_error("connect to the format reader"));
    RK_TRY(connection->step(deadline));
  }
  const std::int64_t size = ::nbd_get_size(handle);
  if (size < 0) return fail(nbd_error("ask for the size of a disk"));
  connection->size_ = static_cast<std::uint64_t>(size);
  return connection;
}

bool DiskConnection::is_usable() const {
  return handle_ && ::nbd_aio_is_dead(handle_.get()) == 0 && ::nbd_aio_is_closed(handle_.get()) == 0;
}

Status DiskConnection::read(std::uint64_t offset, ByteSpan out, Deadline deadline) {
  // As one fragment: QEMU 7.2 ends the connection if a read fails in a reply of several fragments.
  const std::uint32_t flags = ::nbd_can_df(handle_.get()) == 1 ? LIBNBD_CMD_FLAG_DF : 0;
  const nbd_chunk_callback chunk{.callback = accept_chunk, .user_data = nullptr, .free = nullptr};
  const std::int64_t cookie =
      ::nbd_aio_pread_structured(handle_.get(), out.data(), out.size(), offset, chunk, kNoCallback, flags);
  return finish(cookie, deadline);
}

Result<Extent> DiskConnection::extent_at(std::uint64_t offset, std::uint32_t length, Deadline deadline) {
  if (::nbd_can_meta_context(handle_.get(), kAllocation) != 1) return Extent{.length = length, .zeros = false};
  Extent extent{};
  const nbd_extent_callback callback{.callback = keep_first, .user_data = &extent, .free = nullptr};
  RK_TRY(finish(::nbd_aio_block_status(handle_.get(), length, offset, callback, kNoCallback, LIBNBD_CMD_FLAG_REQ_ONE),
                deadline));
  extent.length = std::min<std::uint64_t>(extent.length, length);
  if (extent.length == 0) return fail(Errc::io, "the format reader sent an empty description of a part of the disk");
  return extent;
}

// If anything but a refused command fails, the handle is destroyed immediately, because it refers to the caller's
// buffer.
Status DiskConnection::finish(std::int64_t cookie, Deadline deadline) {
  if (cookie < 0) return fail(nbd_error("read the disk inside the image"));
  for (;;) {
    const int completed = ::nbd_aio_command_completed(handle_.get(), static_cast<std::uint64_t>(cookie));
    if (completed > 0) return {};
    if (completed < 0) return fail(nbd_error("read the disk inside the image"));
    if (const Status stepped = step(deadline); !stepped) {
      handle_.reset();
      return stepped;
    }
  }
}

Status DiskConnection::step(Deadline deadline) {
  const unsigned direction = ::nbd_aio_get_direction(handle_.get());
  const auto events = static_cast<short>(((direction & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                                         ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  if (left.count() <= 0) return fail(Errc::io, "the format reader does not answer within its time limit");
  pollfd watched{.fd = ::nbd_aio_get_fd(handle_.get()), .events = events, .revents = 0};
  const int ready = ::poll(&watched, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1'000'000)));
  if (ready < 0 && errno != EINTR) return fail(error_from_errno(errno, "wait for the format reader"));
  if (ready <= 0) return {};
  // Failures are visible in the state of the handle and of the command.
  if ((watched.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && (direction & LIBNBD_AIO_DIRECTION_READ) != 0)
    static_cast<void>(::nbd_aio_notify_read(handle_.get()));
  else if ((watched.revents & (POLLOUT | POLLHUP | POLLERR)) != 0)
    static_cast<void>(::nbd_aio_notify_write(handle_.get()));
  return {};
}

}  // namespace rekeyfs::formats
