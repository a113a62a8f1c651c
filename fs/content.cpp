// Operations on content: creating and opening images, reading, writing, copying, closing.

#include <cstdlib>
#include <memory>
#include <variant>

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fs/answer.h"
#include "fs/caching.h"
#include "fs/operations.h"
#include "fs/privileges.h"

namespace rekeyfs::fs {
namespace {

fuse_file_info register_file(Context& context, Ino ino, OpenFilePtr file, const fuse_file_info& asked,
                             bool starts_empty, HotImages::Use use) {
  auto opening = context.openings.open(ino, manner_of(context, asked.flags, starts_empty));
  fuse_file_info info = asked;
  info.direct_io = opening->is_direct();
  info.keep_cache = 1;  // valid because only this mount changes the data
  info.fh = context.handles.add_file(
      std::make_unique<FileHandle>(ino, asked.flags, std::move(use), std::move(file), std::move(opening)));
  return info;
}

HotImages::Purpose purpose_of(int flags) {
  return is_opened_for_writing(flags) || flags & O_TRUNC ? HotImages::Purpose::change : HotImages::Purpose::read;
}

void create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* asked) {
  answer(req, "create", parent, [&](Context& context) -> Result<CreatedFile> {
    const int flags = engine_flags(context, asked->flags);
    RK_TRY_ASSIGN(auto created, context.engine.files().create(Ino{parent}, name, mode & 07777, flags, caller_of(req)));
    const Ino ino = created.attributes.ino;
    RK_TRY_ASSIGN(HotImages::Use use, context.hot.enter(ino, HotImages::Purpose::change));
    return CreatedFile{to_entry(created.attributes),
                       register_file(context, ino, std::move(created.file), *asked, true, std::move(use))};
  });
}

void open(fuse_req_t req, fuse_ino_t ino, fuse_file_info* asked) {
  answer(req, "open", ino, [&](Context& context) -> Result<OpenedFile> {
    const int flags = engine_flags(context, asked->flags);
    RK_TRY_ASSIGN(HotImages::Use use, context.hot.enter(Ino{ino}, purpose_of(asked->flags)));
    RK_TRY_ASSIGN(OpenFilePtr file, context.engine.files().open(Ino{ino}, flags, caller_of(req)));
    if (Device::request_kills_privileges()) RK_TRY(take_privileges_away(context, Ino{ino}, caller_of(req)));
    use.note_opened();
    const auto backing = use.backing();
    return OpenedFile{register_file(context, Ino{ino}, std::move(file), *asked, asked->flags & O_TRUNC, std::move(use)),
                      backing};
  });
}

// One buffer per serving thread, reused: a new one for each read would be mapped and faulted in every time.
ByteSpan read_buffer() {
  static constexpr std::size_t kPage = 4096;
  struct Free {
    void operator()(std::byte* buffer) const { std::free(buffer); }
  };
  thread_local const std::unique_ptr<std::byte, Free> buffer(
      static_cast<std::byte*>(std::aligned_alloc(kPage, kMaxTransfer)));
  if (!buffer) return {};
  return {buffer.get(), kMaxTransfer};
}

ByteRange range_at(off_t offset, std::size_t size) {
  return {static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(offset) + size};
}

void read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info* info) {
  answer(req, "read", ino, [&](Context& context) -> Result<Bytes> {
    const ByteSpan buffer = read_buffer();
    if (size > buffer.size()) return fail(Errc::no_memory, "out of memory for a read buffer");
    const FileHandle& handle = HandleTable::file(info->fh);
    if (!is_direct(*info)) handle.opening().note_cached(range_at(offset, size));
    RK_TRY_ASSIGN(const std::size_t got,
                  context.engine.files().read(handle.file(), static_cast<std::uint64_t>(offset), buffer.first(size)));
    return Bytes{buffer.first(got)};
  });
}

// Whether the write must be durable: the handle has O_SYNC or O_DSYNC, or pwritev2 was called with RWF_SYNC or
// RWF_DSYNC; the request's flags contain both. After a cached write the kernel requests the sync itself; after a direct
// write it does not always (FOPEN_DIRECT_IO, AIO).
bool must_be_durable(const fuse_file_info& request) {
  return is_direct(request) && (request.flags & (O_SYNC | O_DSYNC)) != 0;
}

// The reply waits until the kernel's page cache holds no older data of the range.
std::variant<Written, AfterDropping> answer_to_write(fuse_req_t req, const FileHandle& handle,
                                                     const fuse_file_info& request, const ByteRange& written) {
  const Written size{written.end - written.begin};
  if (!is_direct(request)) return size;
  const auto outdated = handle.opening().outdated_by(written);
  if (!outdated) return size;
  return AfterDropping{handle.ino(), outdated->pages, [req, size, &handle, outdated = *outdated] {
                         handle.opening().note_dropped(outdated);
                         send(req, size);
                       }};
}

void write(fuse_req_t req, fuse_ino_t ino, const char* data, std::size_t size, off_t offset, fuse_file_info* info) {
  answer(req, "write", ino, [&](Context& context) -> Result<std::variant<Written, AfterDropping>> {
    const FileHandle& handle = HandleTable::file(info->fh);
    if (Device::request_kills_privileges()) RK_TRY(take_privileges_away(context, Ino{ino}, caller_of(req)));
    if (!is_direct(*info)) handle.opening().note_cached(range_at(offset, size));
    RK_TRY_ASSIGN(const std::size_t written,
                  context.engine.files().write(handle.file(), static_cast<std::uint64_t>(offset), as_bytes({data, size})));
    handle.opening().note_written();
    if (must_be_durable(*info)) RK_TRY(context.engine.files().sync(handle.file()));
    return answer_to_write(req, handle, *info, range_at(offset, written));
  });
}

void flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  answer(req, "flush", ino, [&](Context& context) -> Status {
    const FileHandle& handle = HandleTable::file(info->fh);
    Status flushed = context.engine.files().flush(handle.file());
    handle.note_closed();
    // A refused copy may have deleted its target, whose name must be gone when close(2) returns.
    context.notifier.settle();
    return flushed;
  });
}

void release(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  answer(req, "release", ino, [&](Context& context) -> Status {
    context.handles.remove_file(info->fh);
    return {};
  });
}

// fdatasync is the same as fsync, because the size of an image must be durable, too.
void sync(fuse_req_t req, fuse_ino_t ino, int, fuse_file_info* info) {
  answer(req, "fsync", ino, [&](Context& context) { return context.engine.files().sync(HandleTable::file(info->fh).file()); });
}

Result<Allocate> to_allocate(int mode) {
  switch (mode) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
      return Allocate::reserve;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      return Allocate::punch;
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      return Allocate::zero;
    default:
      return fail(Errc::not_supported, "this fallocate mode is not supported");
  }
}

// Steps after an allocation or a copy, for which the kernel, unlike for a write, neither reports that the caller lacks
// CAP_FSETID nor requests a sync. Root is assumed to have the capability.
Status after_change(Context& context, const FileHandle& handle, const Caller& caller) {
  if (caller.uid != 0) RK_TRY(take_privileges_away(context, handle.ino(), caller));
  return handle.is_synchronous() ? context.engine.files().sync(handle.file()) : Status{};
}

void allocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, fuse_file_info* info) {
  answer(req, "fallocate", ino, [&](Context& context) -> Status {
    RK_TRY_ASSIGN(const Allocate what, to_allocate(mode));
    const FileHandle& handle = HandleTable::file(info->fh);
    RK_TRY(context.engine.files().allocate(handle.file(), what, mode & FALLOC_FL_KEEP_SIZE, static_cast<std::uint64_t>(offset),
                                   static_cast<std::uint64_t>(length)));
    return after_change(context, handle, caller_of(req));
  });
}

struct Seeking {
  fuse_req_t req;
  const FileHandle& handle;
  std::uint64_t offset;
  Seek what;
};

// The hole, as far as the engine knows, that determines the answer to the seek.
Result<ByteRange> hole_behind(Engine& engine, const Seeking& seeking, const Result<std::uint64_t>& found) {
  if (!found && found.error().code != Errc::beyond_end) return fail(found.error());
  if (seeking.what == Seek::data) return ByteRange{seeking.offset, found ? *found : ByteRange::kToTheEnd};
  if (!found) return ByteRange{seeking.offset, ByteRange::kToTheEnd};
  const auto next_data = engine.files().seek(seeking.handle.file(), *found, Seek::data);
  if (!next_data && next_data.error().code != Errc::beyond_end) return fail(next_data.error());
  return ByteRange{*found, next_data ? *next_data : ByteRange::kToTheEnd};
}

// The kernel sends a seek without writing back dirty pages first. So if the image may be changed in the page cache, a
// hole is confirmed only after the kernel has written back and dropped its pages; then the engine is asked again. Pages
// of data stay cached. `clean` was written back already.
void seek_in(const Seeking& seeking, const ByteRange& clean) {
  const Ino ino = seeking.handle.ino();
  answer(seeking.req, "lseek", ino.value(), [&](Context& context) -> Result<std::variant<Position, AfterDropping>> {
    const auto found = context.engine.files().seek(seeking.handle.file(), seeking.offset, seeking.what);
    if (seeking.handle.opening().may_hide_changes()) {
      RK_TRY_ASSIGN(const ByteRange hole, hole_behind(context.engine, seeking, found));
      if (!clean.covers(hole)) return AfterDropping{ino, hole, [seeking, hole] { seek_in(seeking, hole); }};
    }
    RK_TRY(found);
    return Position{*found};
  });
}

void seek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* info) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE)
    return send_error(req, "lseek", ino, Error{Errc::invalid, "whence must be SEEK_DATA or SEEK_HOLE"});
  seek_in({req, HandleTable::file(info->fh), static_cast<std::uint64_t>(offset), whence == SEEK_DATA ? Seek::data : Seek::hole},
          {});
}

void copy_range(fuse_req_t req, fuse_ino_t, off_t offset_in, fuse_file_info* info_in, fuse_ino_t ino_out,
                off_t offset_out, fuse_file_info* info_out, std::size_t size, int) {
  answer(req, "copy_file_range", ino_out, [&](Context& context) -> Result<Written> {
    const FileHandle& out = HandleTable::file(info_out->fh);
    const Caller caller = caller_of(req);
    RK_TRY_ASSIGN(
        const std::uint64_t copied,
        context.engine.files().copy_range(HandleTable::file(info_in->fh).file(), static_cast<std::uint64_t>(offset_in),
                                  out.file(), static_cast<std::uint64_t>(offset_out), size, caller));
    RK_TRY(after_change(context, out, caller));
    return Written{copied};
  });
}

}  // namespace

void add_content_operations(fuse_lowlevel_ops& table) {
  table.create = create;
  table.open = open;
  table.read = read;
  table.write = write;
  table.flush = flush;
  table.release = release;
  table.fsync = sync;
  table.fallocate = allocate;
  table.lseek = seek;
  table.copy_file_range = copy_range;
}

}  // namespace rekeyfs::fs
