// UnusedSpace: what the data files of layers hold beyond the slots that their tables name, given back to the file system.
//
// A kill leaves it: slots that were kept allocated to be written again (blocks/layer.h). Only after a repair's
// checkpoint: until then the journal may name slots that the tables do not. Single-threaded.
#pragma once

#include "engine/check/bench.h"
#include "engine/check/records.h"

namespace rekeyfs::check {

// A layer of whose table something was lost is left as it is.
Status give_back_unused_space(Bench& bench, const Records& records, Findings& findings);

}  // namespace rekeyfs::check
