// Sandbox: what the daemon of a mount gives up, because it never needs it: capabilities, gaining any by running a
// program, and system calls that only an intruder would make.
//
// A daemon of root's only. An ordinary user's has no capabilities, and to unmount it must be able to run fusermount3,
// which is set-uid root: that takes no_new_privs out of the question, and with it every filter.
//
// Its children inherit all of it.
#pragma once

#include <string>

#include "tools/outcome.h"

namespace rekeyfs::tools {

// Keeps CAP_SYS_ADMIN (to mount and unmount), CAP_IPC_LOCK (keys are locked into RAM), CAP_SETFCAP (root can be mapped
// into the user name space of a reader of image formats), CAP_DAC_READ_SEARCH (the mount point may be in a user's private
// directory), and CAP_DAC_OVERRIDE if the store is another user's; sets no_new_privs. Before any thread is started: they
// inherit it.
Outcome<void> drop_privileges(const std::string& store);

// Refuses system calls from now on, with EPERM, in all threads. Once mounted: mounting is one of them. After
// drop_privileges().
Outcome<void> refuse_system_calls();

}  // namespace rekeyfs::tools
