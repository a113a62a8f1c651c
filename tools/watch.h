// Watch: follows the replications of a target, for `status --watch` and `status --wait`. Single-threaded.
#pragma once

#include <nlohmann/json.hpp>

#include "tools/interrupt.h"
#include "tools/outcome.h"
#include "tools/target.h"

namespace rekeyfs::tools {

// Both take an answer to the command "status" or "progress".
// Does anything still go on that --wait waits for? An image has settled when it is normal or in error.
bool has_settled(const nlohmann::json& answer);
// When to stop looking.
enum class Until { nothing_replicates, settled };

// ExitCode::replication_failed if one is in error, and each is reported. ExitCode::stopped if what
// was waited for has not come, and will not, because nothing goes on on a read-only store.
ExitCode verdict(const nlohmann::json& answer, Until until);

// All return the last answer, or ExitCode::failure when the interrupt came. Silent:
Outcome<nlohmann::json> wait_until_settled(Target& target, Interrupt& interrupt);
// With bars on a terminal, with plain lines once a second otherwise, on stdout:
Outcome<nlohmann::json> watch(Target& target, Interrupt& interrupt, Until until);
// With each answer as a line of JSON once a second:
Outcome<nlohmann::json> watch_as_json(Target& target, Interrupt& interrupt, Until until);

}  // namespace rekeyfs::tools
