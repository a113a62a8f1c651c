// Operations on content: creating and opening images, reading, writing, copying, closing.

#include <cstdlib>
#include <memory>

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fs/answer.h"
#include "fs/caching.h"
#include "fs/operations.h"
#include "fs/privileges.h"

namespace rekeyfs::fs {
namespace {

// With a write-back cache the kernel reads through handles opened for writing, to complete pages, and places what is
// appended itself.
int engine_flags(const Context& context, int flags) {
  if (!context.options.writeback_cache) return flags;
  if ((flags & O_ACCMODE) == O_WRONLY) flags = (flags & ~O_ACCMODE) | O_RDWR;
  return flags & ~O_APPEND;
}

fuse_file_info register_file(Context& context, Ino ino, OpenFilePtr file, const fuse_file_info& asked,
                             bool starts_empty, HotImages::Use use) {
  fuse_file_info info = asked;
  info.fh = context.handles.add_file(ino, std::move(file), caching_of(context, asked.flags, starts_empty),
                                     is_opened_for_writing(asked.flags), std::move(use));
  info.direct_io = HandleTable::file(info.fh).is_direct();
  info.keep_cache = 1;  // only this mount changes the data
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
    if (Device::request_kills_privileges()) RK_TRY(take_privileges_away(context.engine, Ino{ino}, caller_of(req)));
    use.note_opened();
    const auto backing = use.backing();
    return OpenedFile{register_file(context, Ino{ino}, std::move(file), *asked, asked->flags & O_TRUNC, std::move(use)),
                      backing};
  });
}

// One buffer per serving thread, kept: a fresh one for every read would be mapped and faulted in each time.
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

void read(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info* info) {
  answer(req, "read", ino, [&](Context& context) -> Result<Bytes> {
    const ByteSpan buffer = read_buffer();
    if (size > buffer.size()) return fail(Errc::no_memory, "out of memory for a read buffer");
    RK_TRY_ASSIGN(const std::size_t got, context.engine.files().read(HandleTable::file(info->fh).file(),
                                                             static_cast<std::uint64_t>(offset), buffer.first(size)));
    return Bytes{buffer.first(got)};
  });
}

void write(fuse_req_t req, fuse_ino_t ino, const char* data, std::size_t size, off_t offset, fuse_file_info* info) {
  answer(req, "write", ino, [&](Context& context) -> Result<Written> {
    const FileHandle& handle = HandleTable::file(info->fh);
    if (Device::request_kills_privileges()) RK_TRY(take_privileges_away(context.engine, Ino{ino}, caller_of(req)));
    RK_TRY_ASSIGN(const std::size_t written,
                  context.engine.files().write(handle.file(), static_cast<std::uint64_t>(offset), as_bytes({data, size})));
    after_write(context, handle);
    return Written{written};
  });
}

void flush(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  answer(req, "flush", ino, [&](Context& context) -> Status {
    const FileHandle& handle = HandleTable::file(info->fh);
    Status flushed = context.engine.files().flush(handle.file());
    handle.note_closed();
    // A refused copy may have removed its target: its name has to be gone when close(2) returns.
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

// fdatasync is fsync here: an image's size is part of what it must find again.
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

// Nothing marks an allocation or a copy of somebody without CAP_FSETID, as it does a write: root stands for those who
// have it.
Status lose_privileges(Context& context, Ino ino, const Caller& caller) {
  if (caller.uid == 0) return {};
  return take_privileges_away(context.engine, ino, caller);
}

void allocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, fuse_file_info* info) {
  answer(req, "fallocate", ino, [&](Context& context) -> Status {
    RK_TRY_ASSIGN(const Allocate what, to_allocate(mode));
    const FileHandle& handle = HandleTable::file(info->fh);
    RK_TRY(context.engine.files().allocate(handle.file(), what, mode & FALLOC_FL_KEEP_SIZE, static_cast<std::uint64_t>(offset),
                                   static_cast<std::uint64_t>(length)));
    return lose_privileges(context, handle.ino(), caller_of(req));
  });
}

void seek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* info) {
  answer(req, "lseek", ino, [&](Context& context) -> Result<Position> {
    if (whence != SEEK_DATA && whence != SEEK_HOLE) return fail(Errc::invalid, "whence must be SEEK_DATA or SEEK_HOLE");
    RK_TRY_ASSIGN(const std::uint64_t found,
                  context.engine.files().seek(HandleTable::file(info->fh).file(), static_cast<std::uint64_t>(offset),
                                      whence == SEEK_DATA ? Seek::data : Seek::hole));
    return Position{found};
  });
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
    RK_TRY(lose_privileges(context, out.ino(), caller));
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
