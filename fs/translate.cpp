#include "fs/translate.h"

#include <algorithm>
#include <limits>

namespace rekeyfs::fs {
namespace {

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

// Times outside the range of 64-bit nanoseconds (1677 to 2262) become the nearest valid one.
Timestamp to_timestamp(const timespec& time) {
  constexpr std::int64_t kMaxSeconds = std::numeric_limits<Timestamp>::max() / kNanosPerSecond - 1;
  if (time.tv_sec > kMaxSeconds) return kMaxSeconds * kNanosPerSecond;
  if (time.tv_sec < -kMaxSeconds) return -kMaxSeconds * kNanosPerSecond;
  return time.tv_sec * kNanosPerSecond + time.tv_nsec;
}

timespec to_timespec(Timestamp time) {
  timespec out{.tv_sec = time / kNanosPerSecond, .tv_nsec = time % kNanosPerSecond};
  if (out.tv_nsec < 0) {  // before 1970: nanoseconds still count forward
    out.tv_nsec += kNanosPerSecond;
    --out.tv_sec;
  }
  return out;
}

std::optional<Timestamp> changed_time(int to_set, int given, int as_of_now, const timespec& time) {
  if (to_set & as_of_now) return now();
  if (to_set & given) return to_timestamp(time);
  return std::nullopt;
}

}  // namespace

mode_t to_mode(NodeKind kind, mode_t permissions) {
  switch (kind) {
    case NodeKind::directory:
      return S_IFDIR | permissions;
    case NodeKind::symlink:
      return S_IFLNK | permissions;
    case NodeKind::image:
      break;
  }
  return S_IFREG | permissions;
}

Stat to_stat(const Attributes& attributes) {
  Stat out{};
  out.st_ino = attributes.ino.value();
  out.st_mode = to_mode(attributes.kind, attributes.permissions);
  out.st_nlink = attributes.links;
  out.st_uid = attributes.uid;
  out.st_gid = attributes.gid;
  out.st_size = static_cast<off_t>(attributes.size);
  out.st_blksize = kPreferredIo;
  // Independent of what is stored: cp treats a file with fewer blocks than its size as sparse and then does not use
  // copy_file_range.
  if (attributes.kind == NodeKind::image)
    out.st_blocks = static_cast<blkcnt_t>(attributes.size / 512 + (attributes.size % 512 != 0));
  out.st_atim = to_timespec(attributes.accessed);
  out.st_mtim = to_timespec(attributes.modified);
  out.st_ctim = to_timespec(attributes.changed);
  return out;
}

Stat to_stat(const DirectoryEntry& entry) {
  Stat out{};
  out.st_ino = entry.ino.value();
  out.st_mode = to_mode(entry.kind, 0);
  return out;
}

Stat directory_stat(Ino ino) {
  Stat out{};
  out.st_ino = ino.value();
  out.st_mode = S_IFDIR;
  return out;
}

fuse_entry_param to_entry(const Attributes& attributes) {
  fuse_entry_param out{};
  out.ino = attributes.ino.value();
  out.attr = to_stat(attributes);
  out.attr_timeout = kCacheSeconds;
  out.entry_timeout = kCacheSeconds;
  return out;
}

fuse_entry_param to_passing_entry(const Attributes& attributes) {
  fuse_entry_param out = to_entry(attributes);
  out.attr_timeout = out.entry_timeout = 0;
  return out;
}

fuse_entry_param absent_entry() {
  fuse_entry_param out{};
  out.entry_timeout = kCacheSeconds;
  return out;
}

struct statvfs to_statvfs(const Space& space) {
  constexpr std::uint64_t kBlock = 4096;
  struct statvfs out {};
  out.f_bsize = out.f_frsize = kBlock;
  out.f_blocks = space.total / kBlock;
  out.f_bfree = out.f_bavail = space.available / kBlock;
  // Nodes are records in the catalog, so their number is limited by bytes, and by a quota.
  out.f_ffree = out.f_favail = std::min<std::uint64_t>(out.f_bavail, space.nodes_left);
  out.f_files = space.nodes + out.f_ffree;
  out.f_namemax = 255;
  return out;
}

AttributeChange to_change(const Stat& wanted, int to_set) {
  AttributeChange out;
  if (to_set & FUSE_SET_ATTR_MODE) out.permissions = wanted.st_mode & 07777;
  if (to_set & FUSE_SET_ATTR_UID) out.uid = wanted.st_uid;
  if (to_set & FUSE_SET_ATTR_GID) out.gid = wanted.st_gid;
  if (to_set & FUSE_SET_ATTR_SIZE) out.size = static_cast<std::uint64_t>(wanted.st_size);
  out.accessed = changed_time(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, wanted.st_atim);
  out.modified = changed_time(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, wanted.st_mtim);
  if (to_set & FUSE_SET_ATTR_CTIME) out.changed = to_timestamp(wanted.st_ctim);
  return out;
}

}  // namespace rekeyfs::fs
