// Operations: what the kernel asks, translated into calls of the engine and back. Nothing is decided here that the
// engine could decide.
//
// The kernel has checked permissions (default_permissions). Every operation runs on one of libfuse's threads; the
// table is made of three groups, each a file: names, content, attributes.
#pragma once

#include "fs/fuse_api.h"

namespace rekeyfs::fs {

fuse_lowlevel_ops operations();

void add_name_operations(fuse_lowlevel_ops& table);
void add_content_operations(fuse_lowlevel_ops& table);
void add_attribute_operations(fuse_lowlevel_ops& table);

// The most one request reads or writes.
inline constexpr unsigned kMaxTransfer = 1 << 20;

}  // namespace rekeyfs::fs
