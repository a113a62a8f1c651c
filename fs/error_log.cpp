#include "fs/error_log.h"

#include <chrono>
#include <string>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::fs {
namespace {

bool concerns_administrator(Errc code) {
  return code == Errc::io || code == Errc::corrupt || code == Errc::no_space || code == Errc::no_memory ||
         code == Errc::too_many_files;
}

std::int64_t seconds_now() {
  using namespace std::chrono;
  // Never 0, which means "nothing logged yet".
  return duration_cast<seconds>(steady_clock::now().time_since_epoch()).count() + 1;
}

}  // namespace

int ErrorLog::report(std::string_view operation, std::uint64_t ino, const Error& error) noexcept {
  if (concerns_administrator(error.code)) {
    if (may_write_now()) {
      const Status told = caught([&] { return write(operation, ino, error); });
      if (!told) log::error("{} failed, and no memory is left for the reason", operation);
    } else {
      ++unwritten_;
    }
  }
  return errno_of(error.code);
}

Status ErrorLog::write(std::string_view operation, std::uint64_t ino, const Error& error) {
  const unsigned unwritten = unwritten_.exchange(0);
  log::error("{} of node {}: {}{}", operation, ino, describe(error),
             unwritten > 0 ? " (and " + std::to_string(unwritten) + " earlier errors of this kind)" : "");
  return {};
}

bool ErrorLog::may_write_now() {
  const std::int64_t now = seconds_now();
  std::int64_t last = last_second_.load();
  return last != now && last_second_.compare_exchange_strong(last, now);
}

}  // namespace rekeyfs::fs
