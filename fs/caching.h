// Caching: decides which open files and which requests bypass the kernel's page cache.
#pragma once

#include <fcntl.h>

#include "fs/context.h"
#include "fs/fuse_api.h"

namespace rekeyfs::fs {

// With a write-back cache the kernel reads through handles opened for writing, to complete pages, and chooses the
// offset of appended data itself.
inline int engine_flags(const Context& context, int flags) {
  if (!context.options.writeback_cache) return flags;
  if ((flags & O_ACCMODE) == O_WRONLY) flags = (flags & ~O_ACCMODE) | O_RDWR;
  return flags & ~O_APPEND;
}

// A write-only handle to a file that starts empty is an import: one sequential pass that is not read through the
// handle. Bypassing the page cache saves a copy and memory. Not with a write-back cache, whose purpose is to combine
// small writes, and not on kernels that keep outdated pages after a direct write.
inline Openings::Manner manner_of(const Context& context, int flags, bool starts_empty) {
  const bool is_import = starts_empty && (flags & O_ACCMODE) == O_WRONLY &&
                         context.device.direct_writes_are_coherent() && !context.options.writeback_cache;
  return {.caching = is_import ? Openings::Caching::import : Openings::Caching::usual,
          .writes = is_opened_for_writing(flags),
          .may_hide_changes = (engine_flags(context, flags) & O_ACCMODE) == O_RDWR};
}

// Whether a read or write bypasses the page cache. Only then does the kernel pass the requesting process.
inline bool is_direct(const fuse_file_info& request) {
  return request.lock_owner != 0;
}

}  // namespace rekeyfs::fs
