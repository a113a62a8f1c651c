// Reading from a descriptor until there is no more. A call that a signal interrupted is repeated. Thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs {

// Until `out` is full or the input ends; returns how many bytes it read.
Result<std::size_t> read_full(int descriptor, ByteSpan out);

// For pipes, whose writer's exit code says whether the text is whole: an error counts as the end.
std::string read_to_end(int descriptor);  // if it does not block: what is there by now
std::string read_to_end(int descriptor, std::chrono::milliseconds limit);  // what came within that time

}  // namespace rekeyfs
