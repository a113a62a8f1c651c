#include "fs/listing.h"

#include "fs/translate.h"

namespace rekeyfs::fs {
namespace {

// Offsets 1 and 2 follow "." and ".."; the offset of an entry is its cookie plus 2.
constexpr off_t kAfterDot = 1, kAfterDots = 2;

off_t to_offset(std::uint64_t cookie) {
  return static_cast<off_t>(cookie) + kAfterDots;
}
std::uint64_t to_cookie(off_t offset) {
  return static_cast<std::uint64_t>(offset - kAfterDots);
}

// The space for an entry with a name of usual length; used to fetch about as many entries as fit.
constexpr std::size_t kUsualName = 32, kUsualWithAttributes = 184;

}  // namespace

Listing::Listing(fuse_req_t req, std::size_t size, Detail detail) : req_(req), detail_(detail), buffer_(size) {}

Status Listing::fill(Context& context, Ino directory, off_t offset) {
  Engine& engine = context.engine;
  if (offset == 0) {
    if (!add_dot(".", directory, kAfterDot)) return {};
    offset = kAfterDot;
  }
  if (offset == kAfterDot) {
    RK_TRY_ASSIGN(const Ino parent, engine.names().parent_of(directory));
    if (!add_dot("..", parent, kAfterDots)) return {};
    offset = kAfterDots;
  }
  const std::size_t usual = detail_ == Detail::names ? kUsualName : kUsualWithAttributes;
  for (std::uint64_t cookie = to_cookie(offset);;) {
    RK_TRY_ASSIGN(const auto entries, engine.names().read_directory(directory, cookie, (buffer_.size() - used_) / usual + 1));
    if (entries.empty()) return {};
    for (const DirectoryEntry& entry : entries)
      if (!add(context, entry)) return {};
    cookie = entries.back().next;
  }
}

bool Listing::add_dot(const char* name, Ino ino, off_t next) {
  fuse_entry_param entry{};  // inode 0: the kernel uses only the attributes in `attr`
  entry.attr = directory_stat(ino);
  return put(name, entry, next);
}

bool Listing::add(Context& context, const DirectoryEntry& entry) {
  fuse_entry_param param{};
  if (detail_ == Detail::attributes) {
    // If the entry was removed meanwhile, only its name is returned, as for "." and "..".
    if (auto attributes = context.engine.names().getattr(entry.ino)) param = to_entry(*attributes);
    param.generation = context.retirement.generation_of(entry.ino);
  }
  if (param.ino == 0) param.attr = to_stat(entry);
  return put(entry.name.c_str(), param, to_offset(entry.next));
}

bool Listing::put(const char* name, const fuse_entry_param& entry, off_t next) {
  char* place = reinterpret_cast<char*>(buffer_.data()) + used_;
  const std::size_t room = buffer_.size() - used_;
  const std::size_t needed = detail_ == Detail::attributes
                                 ? fuse_add_direntry_plus(req_, place, room, name, &entry, next)
                                 : fuse_add_direntry(req_, place, room, name, &entry.attr, next);
  if (needed > room) return false;
  used_ += needed;
  return true;
}

}  // namespace rekeyfs::fs
