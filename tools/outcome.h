// Outcome<T>: a Result whose error includes the exit code. RK_TRY works in functions of both kinds: an Error becomes a
// Failure.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "engine/base/result.h"
#include "tools/exit_code.h"

namespace rekeyfs::tools {

struct Failure {
  ExitCode code;
  std::string message;  // a sentence: what failed, and what to do next

  Failure(ExitCode exit_code, std::string sentence) : code(exit_code), message(std::move(sentence)) {}
  // NOLINTNEXTLINE(google-explicit-constructor): RK_TRY converts an Error to a Failure.
  Failure(const Error& error) : code(exit_code_of(error.code)), message(describe(error)) {}
};

template <typename T>
using Outcome = tl::expected<T, Failure>;

inline tl::unexpected<Failure> fail(ExitCode code, std::string message) {
  return tl::unexpected<Failure>(Failure{code, std::move(message)});
}

}  // namespace rekeyfs::tools
