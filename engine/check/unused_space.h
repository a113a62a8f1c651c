// UnusedSpace: frees the space of slots in layer files that no table names.
//
// Such space remains after a kill, in slots that were kept allocated for reuse (blocks/slot_allocator.h). Call only
// after a repair's checkpoint: before it, the journal may name slots that the tables do not. Single-threaded.
#pragma once

#include "engine/check/bench.h"
#include "engine/check/records.h"

namespace rekeyfs::check {

// Skips layers whose table has lost pages.
Status give_back_unused_space(Bench& bench, const Records& records, Findings& findings);

}  // namespace rekeyfs::check
