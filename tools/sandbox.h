// Sandbox: removes rights that the daemon of a mount never needs: capabilities, gaining capabilities by executing a
// program, and system calls that only an attacker would use.
//
// Only for a daemon of root. The daemon of an ordinary user has no capabilities, and needs to execute fusermount3,
// which is set-uid root, to unmount. This excludes no_new_privs, and thereby any system call filter.
//
// Child processes inherit all of it.
#pragma once

#include <string>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Keeps CAP_SYS_ADMIN (to mount and unmount), CAP_IPC_LOCK (to lock keys into RAM), CAP_SETFCAP (to map root into the
// user namespace of a format reader), CAP_DAC_READ_SEARCH (the mount point may be in another user's private directory),
// and CAP_DAC_OVERRIDE if the store belongs to another user. Sets no_new_privs. Call before starting threads, which
// inherit it.
Outcome<void> drop_privileges(const std::string& store);

// From now on system calls that are not needed fail with EPERM, in all threads. Call after mounting, which needs one of
// them, and after drop_privileges().
Outcome<void> refuse_system_calls();

}  // namespace rekeyfs::tools
