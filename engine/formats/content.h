// Content: bytes that something else is read through: a layer, or the disk inside one. Thread-safe.
#pragma once

#include <cstdint>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::formats {

class Content {
 public:
  virtual ~Content() = default;
  virtual std::uint64_t size() const = 0;  // bytes
  // Fills `out`; what lies beyond the size is zeros.
  virtual Status read(std::uint64_t offset, ByteSpan out) = 0;
  // How many bytes from `offset` on are known to be zeros; 0 if none are.
  virtual Result<std::uint64_t> zeros_at(std::uint64_t offset) = 0;
};

}  // namespace rekeyfs::formats
