// Context: what one mount consists of, handed to every operation as libfuse's userdata.
#pragma once

#include "engine/engine.h"
#include "fs/device.h"
#include "fs/error_log.h"
#include "fs/handles.h"
#include "fs/mount.h"
#include "fs/notifier.h"

namespace rekeyfs::fs {

struct Context {
  Engine& engine;
  const MountOptions& options;
  Device device{};
  ErrorLog errors{};
  HandleTable handles{};
  Notifier notifier{};
};

}  // namespace rekeyfs::fs
