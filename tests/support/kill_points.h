// KillPoints: a process that is killed at a chosen one of the calls by which it changes a store.
//
// For the child processes of tests. kill_points.cpp stands in front of the C library's functions that write, sync, punch,
// remove and rename; so all files of the store are seen, LMDB's too, and the engine knows nothing of it. A point has the
// name of what is done to what: "journal write", "catalog sync". Making a file is none: its first write follows at once.
#pragma once

#include <cstdint>
#include <string>

namespace rekeyfs::test {

enum class Moment {
  before,   // the call
  halfway,  // half of a write is in the file; other calls are not begun
  after,    // done, and nobody has been told
};

// From now on the calls that change something below `store` are counted, and at the `number`th, from 1, the process kills
// itself. It writes the point's name and a newline to the descriptor `report` then. 0: never. Once in a process.
void arm_kill_point(const std::string& store, std::uint64_t number, Moment moment, int report);
std::uint64_t kill_points_passed();

}  // namespace rekeyfs::test
