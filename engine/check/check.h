// Checks a store that is not open; the implementation of Engine::check(). Single-threaded; forks.
#pragma once

#include <string>

#include "engine/base/credential.h"
#include "engine/base/result.h"
#include "engine/types/check_report.h"

namespace rekeyfs::check {

// Problems are in the report; an error means that the check could not be made.
Result<CheckReport> check_store(const std::string& directory, const Credential& credential, const CheckOptions& options,
                                CheckObserver& observer);

}  // namespace rekeyfs::check
