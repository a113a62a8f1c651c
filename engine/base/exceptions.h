// Exceptions as errors. The engine reports by Result; what may still be thrown is std::bad_alloc, and what a library
// throws. It is caught at the edges (a thread, a request), and where something half done has to be put back.
#pragma once

#include <exception>
#include <type_traits>

#include "engine/base/result.h"

namespace rekeyfs {

// Out of memory is Errc::no_memory without a message, which would need memory.
Error error_from_exception(const std::exception& exception) noexcept;

// What `call`, which returns a Result, answers, whatever it throws.
template <typename Call>
std::invoke_result_t<Call&> caught(Call&& call) {
  try {
    return call();
  } catch (const std::exception& exception) {
    return fail(error_from_exception(exception));
  }
}

}  // namespace rekeyfs
