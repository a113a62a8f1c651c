// Reports: what an open store says of itself: facts that commands print. Thread-safe; changes nothing; nothing throws.
#pragma once

#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/types/event.h"
#include "engine/types/node_info.h"
#include "engine/types/refusal.h"
#include "engine/types/replication.h"
#include "engine/types/space.h"

namespace rekeyfs {

class Reports {
 public:
  virtual ~Reports() = default;

  // Errc::read_only, and why, once a failed sync has made the store read-only: until it is opened again.
  virtual Status health() = 0;
  // Features of the store that this program does not know, and can do without: "compat 3".
  virtual std::vector<std::string> unknown_features() = 0;
  // Errc::read_only, and why, if nothing goes on in the background: no replication, no examination of images.
  virtual Status background() = 0;
  virtual Result<Space> space() = 0;
  virtual Result<NodeInfo> info(Ino ino) = 0;
  virtual Result<std::vector<Replication>> replications(Ino under) = 0;  // at or below `under`, by path
  virtual std::vector<Refusal> refusals() = 0;                            // the latest, newest first
  virtual Result<std::vector<Event>> events(const EventQuery& query) = 0;  // of the audit log, oldest first
};

}  // namespace rekeyfs
