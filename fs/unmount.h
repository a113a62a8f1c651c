// Unmount: taking a mount away in order, which fails while somebody uses it.
//
// Both wait for answers of this very process, so other processes do them: a thread that waits for an answer of its own
// process cannot be killed, and would keep the store. When this one is killed, the kernel ends the wait of the others.
#pragma once

#include <string>

namespace rekeyfs::fs {

// True when it is gone. By umount(8) for root, otherwise through fusermount3. Call it while requests are still served:
// the kernel writes back what it holds.
bool unmount_if_unused(const std::string& mountpoint);

// Has the kernel send every page it still holds, those of shared mappings included.
void write_back(const std::string& mountpoint);

}  // namespace rekeyfs::fs
