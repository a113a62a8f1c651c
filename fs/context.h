// Context: the parts of one mount; each operation gets it as libfuse's userdata.
#pragma once

#include "engine/engine.h"
#include "fs/device.h"
#include "fs/error_log.h"
#include "fs/handles.h"
#include "fs/hot_images.h"
#include "fs/kept_answers.h"
#include "fs/mount.h"
#include "fs/notifier.h"
#include "fs/openings.h"
#include "fs/retirement.h"

namespace rekeyfs::fs {

struct Context {
  Engine& engine;
  const MountOptions& options;
  Device device{options.hot_memory > 0 ? Device::Passthrough::wanted : Device::Passthrough::unwanted};
  ErrorLog errors{};
  Retirement retirement{};
  HotImages hot{engine, options, device, retirement};
  Openings openings{};
  KeptAnswers answers{};
  HandleTable handles{};  // its handles hold Uses of the images above, and answers
  Notifier notifier{engine, hot};
};

}  // namespace rekeyfs::fs
