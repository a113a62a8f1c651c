// Unmount: taking a mount away in order, which fails while somebody uses it.
//
// Both wait for answers of this very process, so other programs do them.
#pragma once

#include <string>
#include <vector>

namespace rekeyfs::fs {

// True when it is gone. By umount(8) for root, otherwise through fusermount3. Call it while requests are still served:
// the kernel writes back what it holds.
bool unmount_if_unused(const std::string& mountpoint);

// Has the kernel send every page it still holds, those of shared mappings included, and waits until those of `images`,
// paths below the mount point with a leading '/', have been taken. All that are open for writing should be named:
// syncfs(2) of FUSE does not wait for the answers. One that this user may not open is sent, but not waited for.
void write_back(const std::string& mountpoint, const std::vector<std::string>& images);

}  // namespace rekeyfs::fs
