// Anchor: a short text that says which state of which store this is, to be kept outside it. Pure functions of an open
// Bench.
//
// Every record is authenticated, but an old copy of the whole store is, too. What tells it from the present one is kept
// elsewhere: the number of the last checkpoint, a MAC of the state with the journal since, and one of the last mount's
// salt. The salt is random and stays for good, so that a store that was put back and mounted again is told even when its
// numbers have grown past the anchor's; not so one that was put back to a checkpoint of that very mount, and used again.
#pragma once

#include <optional>

#include "engine/check/bench.h"

namespace rekeyfs::check {

Result<std::string> anchor_of(Bench& bench);
// What makes the store older than when `anchor` was its anchor; nothing if it is not. Errc::invalid for what is no anchor
// of this store.
Result<std::optional<std::string>> rolled_back(Bench& bench, const std::string& anchor);

}  // namespace rekeyfs::check
