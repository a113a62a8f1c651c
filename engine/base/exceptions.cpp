#include "engine/base/exceptions.h"

#include <new>

namespace rekeyfs {

Error error_from_exception(const std::exception& exception) noexcept {
  if (dynamic_cast<const std::bad_alloc*>(&exception)) return {Errc::no_memory, {}};
  try {
    return {Errc::io, exception.what()};
  } catch (const std::bad_alloc&) {
    return {Errc::no_memory, {}};
  }
}

}  // namespace rekeyfs
