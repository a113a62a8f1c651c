// Shared by all fuzz targets: how libFuzzer passes its bytes, and how a violated invariant is reported.
//
// A target should depend on its input only: state kept between inputs is restored, so that a finding can be reproduced.
// An input is parsed with a Reader (engine/base/bytes.h), which returns zeros after its end, so a prefix of an input is
// an input, too.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <spdlog/spdlog.h>

#include "engine/base/bytes.h"
#include "engine/crypto/hash.h"

namespace rekeyfs {

// Crashes, so that libFuzzer keeps the input, as for findings of a sanitizer.
inline void require(bool holds, const std::string& promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise.c_str());
  std::abort();
}

// The value of a Result that cannot fail: a target's own preparations.
template <typename T>
T must(Result<T> result) {
  require(result.has_value(), result ? "" : describe(result.error()));
  return std::move(*result);
}
inline void must(const Status& status) {
  require(status.has_value(), status ? "" : describe(status.error()));
}

// The same in every process, so that encrypted parts of a kept input decrypt.
inline crypto::Key fixed_key() {
  std::array<std::byte, crypto::kKeySize> bytes;
  bytes.fill(std::byte{0x6b});
  return must(crypto::Key::from_bytes(bytes));
}

// Called once before the first input.
inline void prepare() {
  spdlog::set_level(spdlog::level::off);
  const crypto::Sha256 first;  // initializes OpenSSL before the targets' state, so that it is destroyed after it
}

}  // namespace rekeyfs

// Defines the function that libFuzzer calls; `function` takes a ByteView.
#define RK_FUZZ_TARGET(function)                                                      \
  extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments);                 \
  extern "C" int LLVMFuzzerInitialize(int*, char***) {                                \
    rekeyfs::prepare();                                                               \
    return 0;                                                                         \
  }                                                                                   \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);  \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    function(rekeyfs::ByteView(reinterpret_cast<const std::byte*>(data), size));      \
    return 0;                                                                         \
  }
