// ReadMount: verifies a mounted store by reading it as a user: every name and, optionally, every byte of every image.
// Changes nothing, except that images being replicated store what is read (copy on read).
#pragma once

#include <string>

#include "engine/engine.h"

namespace rekeyfs::tools {

// `directory` is in a mount; paths in the report are relative to it. Files that the caller may not read are reported as
// unverified.
CheckReport read_mount(const std::string& directory, bool read_data, CheckObserver& observer);

}  // namespace rekeyfs::tools
