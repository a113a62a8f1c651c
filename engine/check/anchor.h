// Anchor: a short text that identifies the current state of a store, to be kept outside the store. Pure functions of an
// open Bench.
//
// Every record is authenticated, but so is every record of an old copy of the whole store. The anchor distinguishes the
// two. It consists of the number of the last checkpoint, a MAC of the state including the journal since then, and a MAC
// of the salt of the last mount. Each salt is random and never deleted, so a restored store is detected even if it was
// mounted again and its numbers have grown past the anchor's. Not detected: a store restored to a checkpoint of that
// same mount and then used again.
#pragma once

#include <optional>

#include "engine/check/bench.h"

namespace rekeyfs::check {

Result<std::string> anchor_of(Bench& bench);
// Why the store is older than when `anchor` was taken; nullopt if it is not. Errc::invalid if `anchor` is not an anchor
// of this store.
Result<std::optional<std::string>> rolled_back(Bench& bench, const std::string& anchor);

}  // namespace rekeyfs::check
