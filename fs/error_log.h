// ErrorLog: an error's way out of the daemon: its errno to the kernel, and to the log what an administrator must know.
//
// Damage, full disks and exhausted processes tend to come by the thousand, so a line a second is written. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "engine/base/result.h"

namespace rekeyfs::fs {

class ErrorLog {
 public:
  // The errno to answer with.
  int report(std::string_view operation, std::uint64_t ino, const Error& error) noexcept;

 private:
  Status write(std::string_view operation, std::uint64_t ino, const Error& error);
  bool may_write_now();

  std::atomic<std::int64_t> last_second_{0};
  std::atomic<unsigned> unwritten_{0};
};

}  // namespace rekeyfs::fs
