#include "fs/operations.h"

#include "fs/context.h"

namespace rekeyfs::fs {
namespace {

constexpr unsigned kWantedCapabilities =
    FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_IOCTL_DIR | FUSE_CAP_READDIRPLUS |
    FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA;

// Capabilities that libfuse would request by default. AUTO_INVAL_DATA drops cached pages whenever the modification time
// changes, that is after every write. The first version of HANDLE_KILLPRIV leaves the set-uid bits to the file system
// without telling which user writes; the second one, which Device requests, does tell; without either the kernel
// removes the bits.
constexpr unsigned kUnwantedCapabilities = FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ |
                                           FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_POSIX_ACL |
                                           FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS;

void init(void* userdata, fuse_conn_info* connection) {
  const auto& context = *static_cast<Context*>(userdata);
  connection->want |= connection->capable & kWantedCapabilities;
  connection->want &= ~kUnwantedCapabilities;
  if (context.options.writeback_cache) connection->want |= connection->capable & FUSE_CAP_WRITEBACK_CACHE;
  connection->max_write = kMaxTransfer;
  connection->max_readahead = kMaxTransfer;
}

}  // namespace

// Deliberately missing: access, which default_permissions answers, and the lock operations, so that the kernel handles
// locks.
fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops table{};
  table.init = init;
  add_name_operations(table);
  add_content_operations(table);
  add_attribute_operations(table);
  return table;
}

}  // namespace rekeyfs::fs
