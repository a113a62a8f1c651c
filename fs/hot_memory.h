// HotMemory: the memory that holds the plaintext of hot images: an in-memory file system that is not mounted anywhere.
//
// It uses huge pages if the kernel has them, which are read three times as fast. It is never swapped out, is limited to
// its initial size, cannot be reached by a path, and ends with the daemon. Creating it needs CAP_SYS_ADMIN and Linux
// 6.4 (kernels with passthrough are newer). Thread-safe.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/base/bytes.h"
#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::fs {

// An unnamed file. Its destructor frees the memory even if the kernel still has the file open elsewhere: reads then
// return nothing, and mappings raise SIGBUS.
class HotFile {
 public:
  explicit HotFile(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}
  HotFile(HotFile&& other) noexcept = default;
  HotFile& operator=(HotFile&&) = delete;
  ~HotFile();

  int descriptor() const { return descriptor_.get(); }
  Status write(std::uint64_t offset, ByteView bytes);

 private:
  Descriptor descriptor_;
};

class HotMemory {
 public:
  static Result<HotMemory> create(std::uint64_t bytes);
  Result<HotFile> make_file(std::uint64_t size) const;  // consists of one hole
  // In bytes: a write allocates the whole page, or a small page if a huge page would exceed the end of the file.
  static constexpr std::uint64_t kSmallPage = 4096;
  std::uint64_t page() const { return page_; }

 private:
  HotMemory(Descriptor root, std::uint64_t page) : root_(std::move(root)), page_(page) {}
  Descriptor root_;
  std::uint64_t page_;
};

}  // namespace rekeyfs::fs
