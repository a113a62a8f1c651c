// Reads from a descriptor until the end of input. Retries after EINTR. Thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs {

// Reads until `out` is full or the input ends; returns the number of bytes read.
Result<std::size_t> read_full(int descriptor, ByteSpan out);

// For pipes, where the writer's exit code tells whether the text is complete: an error counts as the end.
std::string read_to_end(int descriptor);  // on a non-blocking descriptor: what is available now
std::string read_to_end(int descriptor, std::chrono::milliseconds limit);  // what arrives within that time

}  // namespace rekeyfs
