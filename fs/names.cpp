// Operations on names: lookup, creation without opening, removal, renaming, directories.

#include <fcntl.h>
#include <linux/fs.h>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"
#include "fs/answer.h"
#include "fs/listing.h"
#include "fs/operations.h"

namespace rekeyfs::fs {
namespace {

constexpr mode_t kPermissions = 07777;

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, "lookup", parent, [&](Context& context) -> Result<fuse_entry_param> {
    if (const Ino retired = context.retirement.image_called(Ino{parent}, name))
      return context.engine.names().getattr(retired).map(to_passing_entry);
    auto found = context.engine.names().lookup(Ino{parent}, name);
    if (!found && found.error().code == Errc::not_found) return absent_entry();
    return found.map(to_entry);
  });
}

void forget(fuse_req_t req, fuse_ino_t ino, std::uint64_t) {
  Context& context = context_of(req);
  const Status noted = caught([&]() -> Status {
    context.notifier.forgotten(Ino{ino});
    return {};
  });
  if (!noted) log::debug("the number of node {} is kept until the store is closed", ino);
  fuse_reply_none(req);
}

void make_directory(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  answer(req, "mkdir", parent, [&](Context& context) {
    return context.engine.names().make_directory(Ino{parent}, name, mode & kPermissions, caller_of(req)).map(to_entry);
  });
}

void make_node(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
  answer(req, "mknod", parent, [&](Context& context) -> Result<fuse_entry_param> {
    if (!S_ISREG(mode)) return fail(Errc::not_permitted, "rekeyfs does not support devices, pipes and sockets");
    RK_TRY_ASSIGN(auto created,
                  context.engine.files().create(Ino{parent}, name, mode & kPermissions, O_WRONLY, caller_of(req)));
    RK_TRY(context.engine.files().flush(*created.file));  // mknod leaves no open descriptor, so the image is complete
    return to_entry(created.attributes);
  });
}

void make_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  answer(req, "symlink", parent, [&](Context& context) {
    return context.engine.names().make_symlink(Ino{parent}, name, target, caller_of(req)).map(to_entry);
  });
}

void read_symlink(fuse_req_t req, fuse_ino_t ino) {
  answer(req, "readlink", ino, [&](Context& context) -> Result<LinkTarget> {
    RK_TRY_ASSIGN(std::string target, context.engine.names().read_symlink(Ino{ino}));
    return LinkTarget{std::move(target)};
  });
}

void link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char* name) {
  answer(req, "link", ino,
         [&](Context& context) { return context.engine.names().link(Ino{ino}, Ino{parent}, name).map(to_entry); });
}

void unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, "unlink", parent, [&](Context& context) { return context.engine.names().unlink(Ino{parent}, name); });
}

void remove_directory(fuse_req_t req, fuse_ino_t parent, const char* name) {
  answer(req, "rmdir", parent, [&](Context& context) { return context.engine.names().remove_directory(Ino{parent}, name); });
}

Result<RenameMode> to_rename(unsigned flags) {
  switch (flags) {
    case 0:
      return RenameMode::replace;
    case RENAME_NOREPLACE:
      return RenameMode::no_replace;
    case RENAME_EXCHANGE:
      return RenameMode::exchange;
    default:
      return fail(Errc::invalid, "this rename flag is not supported");
  }
}

void rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent, const char* new_name,
            unsigned flags) {
  answer(req, "rename", parent, [&](Context& context) -> Status {
    RK_TRY_ASSIGN(const RenameMode how, to_rename(flags));
    return context.engine.names().rename(Ino{parent}, name, Ino{new_parent}, new_name, how, caller_of(req));
  });
}

void open_directory(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  answer(req, "opendir", ino, [&](Context& context) -> Result<OpenedDirectory> {
    OpenedDirectory opened{*info};
    opened.info.fh = context.handles.add_directory();
    // The kernel keeps the listing until it changes the directory itself or is notified.
    opened.info.cache_readdir = 1;
    opened.info.keep_cache = 1;
    return opened;
  });
}

void release_directory(fuse_req_t req, fuse_ino_t ino, fuse_file_info* info) {
  answer(req, "releasedir", ino, [&](Context& context) -> Status {
    context.handles.remove_directory(info->fh);
    return {};
  });
}

void sync_directory(fuse_req_t req, fuse_ino_t ino, int, fuse_file_info*) {
  answer(req, "fsyncdir", ino, [&](Context& context) { return context.engine.names().sync_directory(Ino{ino}); });
}

void list(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, Listing::Detail detail) {
  Listing listing(req, size, detail);
  answer(req, "readdir", ino, [&](Context& context) -> Result<Bytes> {
    RK_TRY(listing.fill(context, Ino{ino}, offset));
    return Bytes{listing.bytes()};
  });
}

void read_directory(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, Listing::Detail::names);
}

void read_directory_plus(fuse_req_t req, fuse_ino_t ino, std::size_t size, off_t offset, fuse_file_info*) {
  list(req, ino, size, offset, Listing::Detail::attributes);
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& table) {
  table.lookup = lookup;
  table.forget = forget;
  table.mkdir = make_directory;
  table.mknod = make_node;
  table.symlink = make_symlink;
  table.readlink = read_symlink;
  table.link = link;
  table.unlink = unlink;
  table.rmdir = remove_directory;
  table.rename = rename;
  table.opendir = open_directory;
  table.releasedir = release_directory;
  table.fsyncdir = sync_directory;
  table.readdir = read_directory;
  table.readdirplus = read_directory_plus;
}

}  // namespace rekeyfs::fs
