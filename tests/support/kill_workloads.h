// Small workloads for tests that interrupt them and compare the remaining store with the acknowledged calls.
#pragma once

#include <functional>
#include <ostream>
#include <random>
#include <vector>

#include "tests/support/store_user.h"

namespace rekeyfs::test {

using Step = std::function<Status(StoreUser&)>;  // one call that changes something or makes it durable
using Steps = std::vector<Step>;
struct Workload {
  const char* name;
  void (*plan)(std::mt19937_64&, Steps& before, Steps& steps);
  bool killed_before = false;  // the store is left with a journal, and kills begin while it is being opened
  friend void PrintTo(const Workload& workload, std::ostream* out) { *out << workload.name; }
};

// The keys and directories that all workloads need.
Steps folders();

// Import, write, sync, replicate, fill and detach, rotate (directory and key), delete, key operations, names, open.
extern const std::vector<Workload> kWorkloads;

}  // namespace rekeyfs::test
