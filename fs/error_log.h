// ErrorLog: maps errors of operations to errno, and logs those that an administrator must know about.
//
// Damage, full disks and exhausted processes cause thousands of errors, so at most one line per second is logged.
// Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "engine/base/result.h"

namespace rekeyfs::fs {

class ErrorLog {
 public:
  // Returns the errno for the reply.
  int report(std::string_view operation, std::uint64_t ino, const Error& error) noexcept;

 private:
  Status write(std::string_view operation, std::uint64_t ino, const Error& error);
  bool may_write_now();

  std::atomic<std::int64_t> last_second_{0};
  std::atomic<unsigned> unwritten_{0};
};

}  // namespace rekeyfs::fs
