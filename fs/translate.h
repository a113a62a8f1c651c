// Translate: converts the engine's attributes to the kernel's, and the kernel's changes to the engine's.
//
// Pure functions, for operations only.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/engine.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// How long the kernel may cache names and attributes. Long, because only this mount changes the store; the Notifier
// announces changes that the kernel cannot know of. Negative entries are cached as long.
inline constexpr double kCacheSeconds = 3600;

// The buffer size that cp uses: one write request of the maximum size instead of eight.
inline constexpr blksize_t kPreferredIo = 1 << 20;

using Stat = struct stat;  // struct stat, because stat is a function, too

mode_t to_mode(NodeKind kind, mode_t permissions);
Stat to_stat(const Attributes& attributes);
// For readdir, which returns only the number and the type.
Stat to_stat(const DirectoryEntry& entry);
Stat directory_stat(Ino ino);
fuse_entry_param to_entry(const Attributes& attributes);
// An entry that the kernel looks up at every use.
fuse_entry_param to_passing_entry(const Attributes& attributes);
// A negative entry, which the kernel may cache.
fuse_entry_param absent_entry();
struct statvfs to_statvfs(const Space& space);

// `to_set` is a mask of FUSE_SET_ATTR_*.
AttributeChange to_change(const Stat& wanted, int to_set);

}  // namespace rekeyfs::fs
