// Reports: facts about an open store, for commands. Thread-safe; changes nothing; no function throws.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/types/event.h"
#include "engine/types/node_info.h"
#include "engine/types/quota_state.h"
#include "engine/types/refusal.h"
#include "engine/types/replication.h"
#include "engine/types/space.h"

namespace rekeyfs {

class Reports {
 public:
  virtual ~Reports() = default;

  // Errc::read_only, with the reason, after a failed sync made the store read-only, until it is reopened.
  virtual Status health() = 0;
  // Unknown but ignorable features of the store: "compat 3".
  virtual std::vector<std::string> unknown_features() = 0;
  // Errc::read_only, with the reason, if background work does not run: no replication, no examination of images.
  virtual Status background() = 0;
  virtual Result<Space> space() = 0;
  // The same at a node: not more than the quotas above it leave.
  virtual Result<Space> space_at(Ino node) = 0;
  // nullopt if the node has no quota of its own.
  virtual Result<std::optional<QuotaState>> quota(Ino node) = 0;
  virtual Result<NodeInfo> info(Ino ino) = 0;
  virtual Result<std::vector<Replication>> replications(Ino under) = 0;  // at or below `under`, ordered by path
  virtual std::vector<Refusal> refusals() = 0;                            // the latest ones, newest first
  virtual Result<std::vector<Event>> events(const EventQuery& query) = 0;  // from the audit log, oldest first
  // Whether an event of the audit log is missing or changed. Changes of the store wait meanwhile.
  virtual Result<LogVerification> verify_log() = 0;
  // Number of the newest event when the store was opened; 0 if there was none.
  virtual std::uint64_t newest_event_at_open() = 0;
};

}  // namespace rekeyfs
