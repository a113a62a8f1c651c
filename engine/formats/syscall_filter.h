// The system calls that a format reader may make, as a seccomp program for bubblewrap. For SandboxedProcess.
#pragma once

#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::formats {

// Returns a descriptor with the program. A system call that is not listed fails with ENOSYS, so that a C library that
// tries a newer call first falls back to an older one.
Result<Descriptor> make_syscall_filter();

}  // namespace rekeyfs::formats
