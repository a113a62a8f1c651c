// Target: what the PATH of a command names, a place in a mounted store or an unmounted store, and the one way to
// send a command there (fs/control.h).
//
// Single-threaded. A mounted store is asked through its daemon; an unmounted one is opened here, and freed with
// this object.
#pragma once

#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "tools/outcome.h"
#include "tools/unlock.h"

namespace rekeyfs::tools {

// What goes on in an unmounted store while a command has it open.
enum class Filling { pause, go_on };

class Target {
 public:
  // `unlock` is for an unmounted store. ExitCode::not_mounted if the path is neither.
  static Outcome<std::unique_ptr<Target>> open(const std::string& path, const UnlockOptions& unlock,
                                               Filling filling = Filling::pause);
  virtual ~Target() = default;
  // The "ok" part of the answer. The name of an image is added to the request.
  virtual Outcome<nlohmann::json> call(nlohmann::json request) = 0;
  // Makes what was changed durable, where this process is the one to do so. No other call may follow.
  virtual Outcome<void> close() { return {}; }
};

}  // namespace rekeyfs::tools
