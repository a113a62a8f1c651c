// Watch: follows the replications of a target, for `status --watch` and `status --wait`. Single-threaded.
#pragma once

#include <nlohmann/json.hpp>

#include "tools/interrupt.h"
#include "tools/outcome.h"
#include "tools/target.h"

namespace rekeyfs::tools {

// `answer` in this file is the answer to the command "status" or "progress".
// Whether --wait has to continue waiting. An image is settled when it is normal or in error.
bool has_settled(const nlohmann::json& answer);
// Condition to stop watching.
enum class Until { nothing_replicates, settled };

// ExitCode::replication_failed if a replication is in error; each such error is reported. ExitCode::stopped if the
// awaited state was not reached and never will be, because no background work runs on a read-only store.
ExitCode verdict(const nlohmann::json& answer, Until until);

// These functions return the last answer, or ExitCode::failure after an interrupt. Without output:
Outcome<nlohmann::json> wait_until_settled(Target& target, Interrupt& interrupt);
// To stdout, as bars on a terminal and otherwise as plain lines once a second:
Outcome<nlohmann::json> watch(Target& target, Interrupt& interrupt, Until until);
// Each answer as one line of JSON per second:
Outcome<nlohmann::json> watch_as_json(Target& target, Interrupt& interrupt, Until until);

}  // namespace rekeyfs::tools
