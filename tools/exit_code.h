// ExitCode: the meaning of a command's exit code. `rekeyfs --help` and rekeyfs(1) contain the table.
//
// Scripts rely on the numbers: they are never reused, and new ones are appended.
#pragma once

#include <span>
#include <string_view>

#include "engine/base/result.h"

namespace rekeyfs::tools {

enum class ExitCode : int {
  ok = 0,
  failure = 1,
  usage = 2,
  wrong_secret = 3,
  store_in_use = 4,
  not_a_store = 5,
  unknown_version = 6,
  damaged = 7,
  busy = 8,
  replication_failed = 9,
  no_key = 10,
  key_revoked = 11,
  bad_mountpoint = 12,
  not_mounted = 13,
  not_found = 14,
  exists = 15,
  denied = 16,
  no_space = 17,
  refused = 18,
  not_durable = 19,
  stopped = 20,
  partial = 21,
};

struct ExitCodeRow {
  ExitCode code;
  std::string_view meaning;
};

std::span<const ExitCodeRow> exit_codes();
ExitCode exit_code_of(Errc code);

}  // namespace rekeyfs::tools
