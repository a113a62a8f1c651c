// Credential: how a store is unlocked, the bytes of a passphrase or of a key file. Move-only, so that one place owns
// the bytes, which lie in secret memory.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

#include "engine/base/secret_memory.h"

namespace rekeyfs {

class Credential {
 public:
  enum class Kind : std::uint8_t { passphrase = 1, key_file = 2 };  // numbers on disk

  Credential(Kind kind, SecretBytes bytes) : kind_(kind), bytes_(std::move(bytes)) {}
  // A copy of what is nobody's secret, or of what the caller wipes.
  Credential(Kind kind, std::string_view bytes) : Credential(kind, SecretBytes(bytes)) {}

  Kind kind() const { return kind_; }
  std::string_view expose_bytes() const { return bytes_.expose(); }

 private:
  Kind kind_;
  SecretBytes bytes_;
};

}  // namespace rekeyfs
