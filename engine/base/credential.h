// Credential: the secret that unlocks a store: the bytes of a passphrase or of a key file. Move-only, so that it is the
// only owner of the bytes, which are in secret memory.
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
  // Copies bytes that are not secret, or that the caller wipes.
  Credential(Kind kind, std::string_view bytes) : Credential(kind, SecretBytes(bytes)) {}

  Kind kind() const { return kind_; }
  std::string_view expose_bytes() const { return bytes_.expose(); }

 private:
  Kind kind_;
  SecretBytes bytes_;
};

}  // namespace rekeyfs
