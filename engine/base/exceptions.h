// Converts exceptions to errors. The engine reports errors as Result; exceptions are only std::bad_alloc and those of
// libraries. They are caught at the edges (a thread, a request) and where an unfinished change has to be undone.
#pragma once

#include <exception>
#include <type_traits>

#include "engine/base/result.h"

namespace rekeyfs {

// Out of memory becomes Errc::no_memory without a message, because a message would need memory.
Error error_from_exception(const std::exception& exception) noexcept;

// Returns the Result of `call`, or the exception that it throws as an error.
template <typename Call>
std::invoke_result_t<Call&> caught(Call&& call) {
  try {
    return call();
  } catch (const std::exception& exception) {
    return fail(error_from_exception(exception));
  }
}

}  // namespace rekeyfs
