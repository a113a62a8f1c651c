// Operations: translates kernel requests to engine calls and results back. It leaves every decision that the engine can
// make to the engine.
//
// The kernel has already checked permissions (default_permissions). Every operation runs on one of libfuse's threads.
// The table consists of three groups, one file each: names, content, attributes.
#pragma once

#include "fs/fuse_api.h"

namespace rekeyfs::fs {

fuse_lowlevel_ops operations();

void add_name_operations(fuse_lowlevel_ops& table);
void add_content_operations(fuse_lowlevel_ops& table);
void add_attribute_operations(fuse_lowlevel_ops& table);

// Maximum bytes of one read or write request.
inline constexpr unsigned kMaxTransfer = 1 << 20;

}  // namespace rekeyfs::fs
