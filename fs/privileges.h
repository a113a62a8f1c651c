// Privileges: the set-uid and set-gid bits that a write, a truncation or a change of owner takes away.
//
// The kernel leaves that to the file system where FUSE_HANDLE_KILLPRIV_V2 is in use (fs/device.h); where it is not, the
// kernel has done it and there is nothing left to take away.
#pragma once

#include "fs/context.h"

namespace rekeyfs::fs {

// Returns when the kernel shows the image without the bits.
Status take_privileges_away(Context& context, Ino ino, const Caller& caller);

// The same as part of a change under way that does not set permissions itself.
Status leave_privileges_out(Engine& engine, Ino ino, AttributeChange& change);

}  // namespace rekeyfs::fs
