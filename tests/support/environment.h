// The environment variables that configure tests; CONTRIBUTING.md lists them.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace rekeyfs::test {

// A number from the environment; `otherwise` if it is not set.
inline std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 0) : otherwise;
}

}  // namespace rekeyfs::test
