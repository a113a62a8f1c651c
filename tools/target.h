// Target: the place that the PATH argument of a command names, in a mounted or an unmounted store. All commands are
// sent to the store through it (fs/control.h).
//
// Single-threaded. A command for a mounted store goes to its daemon; an unmounted store is opened in this process, and
// closed by the destructor.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "tools/outcome.h"
#include "tools/unlock.h"

namespace rekeyfs::tools {

// Which background work runs in an unmounted store while a command has it open.
enum class Filling { pause, go_on };

class Target {
 public:
  // `unlock` is used for an unmounted store. ExitCode::not_mounted if the path is in no store.
  static Outcome<std::unique_ptr<Target>> open(const std::string& path, const UnlockOptions& unlock,
                                               Filling filling = Filling::pause);
  virtual ~Target() = default;
  // Returns the "ok" part of the answer. If PATH names an image, adds its name to the request.
  virtual Outcome<nlohmann::json> call(nlohmann::json request) = 0;
  // Makes changes durable if this process has opened the store. No other call may follow.
  virtual Outcome<void> close() { return {}; }
};

}  // namespace rekeyfs::tools
