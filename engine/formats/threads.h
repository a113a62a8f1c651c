// Starts a thread and returns an error, instead of throwing, if the system has no more threads. For engine/formats
// only.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include "engine/base/result.h"

namespace rekeyfs::formats {

template <typename Work>
Status run_thread(std::thread& thread, Work&& work) {
  try {
    thread = std::thread(std::forward<Work>(work));
  } catch (const std::system_error& error) {
    return fail(error_from_errno(error.code().value(), "start a thread for a format reader"));
  }
  return {};
}

}  // namespace rekeyfs::formats
