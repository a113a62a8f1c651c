// HotMemory: where the plaintext of hot images is: a file system in memory that is mounted nowhere.
//
// It is made of huge pages where the kernel has them, which are read three times as fast. It never goes to swap, holds
// no more than it was made for, is reachable by no path, and goes with the daemon. Needs CAP_SYS_ADMIN while it is made,
// and Linux 6.4 (the kernels that can pass reads through to it are younger).
// Thread-safe.
#pragma once

#include <cstdint>
#include <utility>

#include "engine/base/bytes.h"
#include "engine/base/descriptor.h"
#include "engine/base/result.h"

namespace rekeyfs::fs {

// A file without a name. Gives its memory back when it goes, even if the kernel still has it open elsewhere: that then
// reads nothing, and what is mapped of it raises SIGBUS.
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
  Result<HotFile> make_file(std::uint64_t size) const;  // all of it a hole
  // Bytes: where something is written all of a page is taken, or of a small one where a large one would reach beyond the
  // end of the file.
  static constexpr std::uint64_t kSmallPage = 4096;
  std::uint64_t page() const { return page_; }

 private:
  HotMemory(Descriptor root, std::uint64_t page) : root_(std::move(root)), page_(page) {}
  Descriptor root_;
  std::uint64_t page_;
};

}  // namespace rekeyfs::fs
