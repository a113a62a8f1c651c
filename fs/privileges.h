// Privileges: removes the set-uid and set-gid bits at a write, a truncation or a change of owner.
//
// With FUSE_HANDLE_KILLPRIV_V2 (fs/device.h) the kernel leaves this to the file system; without it, the kernel has
// already done it and nothing is left to remove.
#pragma once

#include "fs/context.h"

namespace rekeyfs::fs {

// Removes the bits; returns when the kernel shows the image without them.
Status take_privileges_away(Context& context, Ino ino, const Caller& caller);

// The same as part of a setattr that does not set permissions itself.
Status leave_privileges_out(Engine& engine, Ino ino, AttributeChange& change);

}  // namespace rekeyfs::fs
