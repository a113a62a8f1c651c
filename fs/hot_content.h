// Hot content: copies an image's bytes from the engine to the memory for hot images. Pure functions.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/engine.h"
#include "fs/hot_memory.h"

namespace rekeyfs::fs {

// Bytes of memory needed for `size` bytes of content in a file with such pages; holes need none.
Result<std::uint64_t> memory_needed(Engine& engine, OpenFile& image, std::uint64_t size, std::uint64_t page);

// Copies everything but holes to `out`, which must be one hole. Calls `goes_on` between two pieces; Errc::busy if it
// returns false.
Status copy_content(Engine& engine, OpenFile& image, HotFile& out, const std::function<bool()>& goes_on);

}  // namespace rekeyfs::fs
