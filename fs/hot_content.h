// Hot content: an image's bytes, brought from the engine into the memory for hot images. Pure functions over both.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/engine.h"
#include "fs/hot_memory.h"

namespace rekeyfs::fs {

// Bytes of memory that the content, `size` bytes of it, takes in a file of such pages: holes take none.
Result<std::uint64_t> memory_needed(Engine& engine, OpenFile& image, std::uint64_t size, std::uint64_t page);

// Copies what is no hole into `out`, which is one hole. Between two pieces `goes_on` is asked; Errc::busy if it says
// no.
Status copy_content(Engine& engine, OpenFile& image, HotFile& out, const std::function<bool()>& goes_on);

}  // namespace rekeyfs::fs
