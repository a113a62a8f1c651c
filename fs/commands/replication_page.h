// ReplicationPage: a part of the list of replications, so that an answer stays small however many there are.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "engine/types/attributes.h"
#include "engine/types/replication.h"

namespace rekeyfs::fs {

struct ReplicationPage {
  static constexpr std::size_t kMaxTextBytes = std::size_t{1} << 18;  // of paths and errors; JSON may escape each byte

  std::vector<Replication> replications;
  std::optional<Ino> next;  // what page_after() takes for the next page; nullopt: this is the last one
};

// The replications whose images have numbers above `after`, in their order, as many as fit.
ReplicationPage page_after(std::vector<Replication> all, Ino after);

}  // namespace rekeyfs::fs
