// Scratch: uninitialized memory, for buffers that are written before they are read.
#pragma once

#include <memory>

#include "engine/base/bytes.h"

namespace rekeyfs::blocks {

class Scratch {
 public:
  explicit Scratch(std::size_t size) : bytes_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}
  ByteSpan span() { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_;
};

inline void fill_zero(ByteSpan out) { std::fill(out.begin(), out.end(), std::byte{0}); }

}  // namespace rekeyfs::blocks
