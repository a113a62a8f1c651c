// Unmount: unmounts a mount in order, which fails while it is in use.
//
// Both functions wait for answers of this process, so other programs make the calls.
#pragma once

#include <string>
#include <vector>

namespace rekeyfs::fs {

// True if it is unmounted. Uses umount(8) as root and fusermount3 otherwise. Call it while requests are still served,
// because the kernel writes back its pages.
bool unmount_if_unused(const std::string& mountpoint);

// Makes the kernel send all dirty pages, including those of shared mappings, and waits until the pages of `images` were
// received. `images`: paths below the mount point with a leading '/'; name all images open for writing, because
// syncfs(2) on FUSE does not wait for the answers. Pages of images that this user may not open are sent, but not waited
// for.
void write_back(const std::string& mountpoint, const std::vector<std::string>& images);

}  // namespace rekeyfs::fs
