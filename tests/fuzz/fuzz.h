// What the fuzz targets share: how libFuzzer hands over its bytes, and how a broken promise is told.
//
// A target is a function of its input alone, as far as the parts it drives allow: what it keeps between inputs is put
// back, so that a finding can be played again. An input is taken apart by a Reader (engine/base/bytes.h), which is zero
// when it ends; so a prefix of an input is an input.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <spdlog/spdlog.h>

#include "engine/base/bytes.h"
#include "engine/crypto/hash.h"

namespace rekeyfs {

// A crash, of which libFuzzer keeps the input as it does of a sanitizer's findings.
inline void require(bool holds, const std::string& promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise.c_str());
  std::abort();
}

// The value of what cannot fail: a target's own preparations.
template <typename T>
T must(Result<T> result) {
  require(result.has_value(), result ? "" : describe(result.error()));
  return std::move(*result);
}
inline void must(const Status& status) {
  require(status.has_value(), status ? "" : describe(status.error()));
}

// The same in every process, so that what is sealed in a kept input opens.
inline crypto::Key fixed_key() {
  std::array<std::byte, crypto::kKeySize> bytes;
  bytes.fill(std::byte{0x6b});
  return must(crypto::Key::from_bytes(bytes));
}

// Once, before the first input.
inline void prepare() {
  spdlog::set_level(spdlog::level::off);
  const crypto::Sha256 first;  // OpenSSL is set up before what the targets keep, and so goes after it
}

}  // namespace rekeyfs

// The function that libFuzzer calls; `function` takes a ByteView.
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
