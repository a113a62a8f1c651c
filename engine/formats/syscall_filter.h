// The system calls a format reader may make, as a seccomp program for bubblewrap. For SandboxedProcess.
#pragma once

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::formats {

// A descriptor to read the program from. What the list does not name fails with ENOSYS, so that a C library which
// tries a newer call first falls back to an older one.
Result<Descriptor> make_syscall_filter();

}  // namespace rekeyfs::formats
