// ReadMount: verifies a mounted store by reading it, as a user of the mount would: every name, and every byte of every
// image if that is wanted. Nothing is changed, except that images which are being replicated keep what was read of them.
#pragma once

#include <string>

#include "engine/engine.h"

namespace rekeyfs::tools {

// `directory` is in a mount. Paths in the report begin at it. What the caller may not read is unverified.
CheckReport read_mount(const std::string& directory, bool read_data, CheckObserver& observer);

}  // namespace rekeyfs::tools
