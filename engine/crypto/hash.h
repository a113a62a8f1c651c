// Hashes, message authentication and key derivation. All functions are thread-safe.
#pragma once

#include <array>
#include <memory>

#include "engine/base/ids.h"
#include "engine/crypto/key.h"

namespace rekeyfs::crypto {

using Digest = std::array<std::byte, 32>;
using Tag = std::array<std::byte, 16>;

// Fills `out` from the operating system's random generator.
Status fill_random(ByteSpan out);
// An RFC 4122 version 4 UUID: 122 random bits.
Result<Uuid> random_uuid();

// HKDF-SHA256 (RFC 5869) with 32 bytes of output. `info` names the purpose of the key; each purpose has its own.
Result<Key> derive_key(const Key& from, ByteView salt, std::string_view info);
// The same from the raw bytes of a key file.
Result<Key> derive_key(ByteView from, ByteView salt, std::string_view info);

// scrypt (RFC 7914). `log2_n` from 10 to 22, `r` from 1 to 32, `p` from 1 to 16; the store's default is
// N = 2^17, r = 8, p = 1 (128 MiB), OWASP's first recommendation.
struct ScryptCost {
  std::uint8_t log2_n = 17;
  std::uint8_t r = 8;
  std::uint8_t p = 1;
};
Result<Key> derive_key_from_passphrase(std::string_view passphrase, ByteView salt, ScryptCost cost);

// HMAC-SHA256 under one key; set up once, used for many messages by many threads.
class Mac {
 public:
  static Result<Mac> create(const Key& key);
  Mac(Mac&&) noexcept;
  Mac& operator=(Mac&&) noexcept;
  ~Mac();
  // Authenticates the concatenation of `first` and `second`; the caller ensures that the split is unambiguous
  // (fixed-size first).
  Digest digest(ByteView first, ByteView second = {}) const;
  // The first 16 bytes of digest().
  Tag tag(ByteView first, ByteView second = {}) const;

 private:
  struct State;
  explicit Mac(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

bool equal_constant_time(ByteView a, ByteView b);

// SHA-256 of a stream; not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(ByteView bytes);
  Digest finish();  // call once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace rekeyfs::crypto
