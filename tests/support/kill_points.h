// KillPoints: kills the process at a chosen call that changes a store.
//
// For the child processes of tests. kill_points.cpp replaces the C library's functions that write, sync, punch, remove
// and rename, so that it sees all files of the store including LMDB's, and the engine does not know about it. The name
// of a point consists of the kind of file and the operation: "journal write", "catalog sync". Creating a file is not a
// point, because its first write follows immediately.
#pragma once

#include <cstdint>
#include <string>

namespace rekeyfs::test {

enum class Moment {
  before,   // before the call
  halfway,  // after half of a write; other calls are not started
  after,    // after the call, before it returns
};

// From now on counts the calls that change a file below `store`. At call `number`, from 1, writes the point's name and
// a newline to the descriptor `report`, and kills the process. 0: never. Call once per process.
void arm_kill_point(const std::string& store, std::uint64_t number, Moment moment, int report);
std::uint64_t kill_points_passed();

}  // namespace rekeyfs::test
