// The check of a store that nobody has open: what Engine::check() does. Single-threaded; forks.
#pragma once

#include <string>

#include "engine/base/credential.h"
#include "engine/base/result.h"
#include "engine/types/check_report.h"

namespace rekeyfs::check {

// Problems are in the report; an error is what kept the check from being made at all.
Result<CheckReport> check_store(const std::string& directory, const Credential& credential, const CheckOptions& options,
                                CheckObserver& observer);

}  // namespace rekeyfs::check
