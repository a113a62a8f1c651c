// The engine's log: spdlog behind one name, so that the program decides where lines go.
//
// Never pass a key, a passphrase or image content to it. Thread-safe.
#pragma once

#include <spdlog/spdlog.h>

namespace rekeyfs::log {

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace rekeyfs::log
