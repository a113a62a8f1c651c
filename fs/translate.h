// Translate: the engine's attributes in the kernel's terms, and the kernel's changes in the engine's.
//
// Pure functions, used by the operations only.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/engine.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// How long the kernel may keep names and attributes. Long, because only this mount changes the store; what it
// cannot see coming is announced through the Notifier. Names that do not exist are kept as long.
inline constexpr double kCacheSeconds = 3600;

// What cp takes as its buffer: one write request of the largest size instead of eight.
inline constexpr blksize_t kPreferredIo = 1 << 20;

using Stat = struct stat;  // the name is a function's as well

mode_t to_mode(NodeKind kind, mode_t permissions);
Stat to_stat(const Attributes& attributes);
// For readdir, which shows the number and the kind only.
Stat to_stat(const DirectoryEntry& entry);
Stat directory_stat(Ino ino);
fuse_entry_param to_entry(const Attributes& attributes);
// One that is looked up again whenever it is used.
fuse_entry_param to_passing_entry(const Attributes& attributes);
// "There is no such name", for the kernel to keep.
fuse_entry_param absent_entry();
struct statvfs to_statvfs(const Space& space);

// `to_set` is a mask of FUSE_SET_ATTR_*.
AttributeChange to_change(const Stat& wanted, int to_set);

}  // namespace rekeyfs::fs
