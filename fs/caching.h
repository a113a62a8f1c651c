// Caching: which open files bypass the kernel's page cache.
#pragma once

#include <fcntl.h>

#include "fs/context.h"

namespace rekeyfs::fs {

inline bool is_opened_for_writing(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY;
}

// A handle that can only write, into a file that starts empty, is an import: one pass that nobody reads through it.
// Passing the data by the page cache saves its copying and its pages. Not with a write-back cache, which
// wants to collect small writes, and not on kernels that leave old pages behind a direct write.
inline HandleTable::Caching caching_of(const Context& context, int flags, bool starts_empty) {
  const bool is_import = starts_empty && (flags & O_ACCMODE) == O_WRONLY &&
                         context.device.direct_writes_are_coherent() && !context.options.writeback_cache;
  return is_import ? HandleTable::Caching::import : HandleTable::Caching::usual;
}

// The kernel drops an image's cached pages before a direct write, but a shared mapping may fetch the old ones again
// before the write has reached us. So with a second handle open they are dropped once more after it.
inline void after_write(Context& context, const FileHandle& handle) {
  handle.note_written();
  if (!handle.is_direct() || !handle.is_shared()) return;
  context.notifier.content_changed(handle.ino());
  context.notifier.settle();
}

}  // namespace rekeyfs::fs
