// Content: the interface of readable bytes: a layer, or the disk inside one. Thread-safe.
#pragma once

#include <cstdint>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::formats {

class Content {
 public:
  virtual ~Content() = default;
  virtual std::uint64_t size() const = 0;  // in bytes
  // Fills `out`; bytes beyond the size are zeros.
  virtual Status read(std::uint64_t offset, ByteSpan out) = 0;
  // The number of bytes from `offset` on that are known to be zeros; 0 if the first one is not.
  virtual Result<std::uint64_t> zeros_at(std::uint64_t offset) = 0;
};

}  // namespace rekeyfs::formats
