// Replication: one active or waiting replication, for `status`.
#pragma once

#include <cstdint>
#include <string>

#include "engine/types/image_state.h"

namespace rekeyfs {

struct Replication {
  Ino ino;
  std::string path;        // of the target, from the store's root ("/tenant-a/debian.qcow2")
  std::string source;      // path of the source at the time of the copy
  std::string key_before;  // alias; empty for plain
  std::string key_after;
  ImageState state = ImageState::replicating;
  std::string error;        // why it is suspended, and what to do
  std::uint64_t bytes_total = 0;
  std::uint64_t bytes_done = 0;
  double bytes_per_second = 0;  // recent rate; 0: unknown
  Timestamp started = 0;
};

}  // namespace rekeyfs
