// Aead: authenticated encryption of small records (catalog values, journal records, wrapped keys).
//
// AES-256-GCM. Callers never choose a nonce: seal() generates one and prepends it. There are two generators: `random`
// for a long-lived key (at most 2^32 seals), and `counting` for a key that only this object ever seals with, because it
// was derived from a fresh random salt (an epoch's). `counting` combines 4 random bytes drawn at creation with a 64-bit
// counter; it is faster and has no such limit. Thread-safe.
#pragma once

#include <memory>

#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {

enum class NonceSource { random, counting };

class Aead {
 public:
  static constexpr std::size_t kOverhead = 12 + 16;  // nonce in front, tag at the end

  static Result<Aead> create(const Key& key, NonceSource nonces);
  Aead(Aead&&) noexcept;
  Aead& operator=(Aead&&) noexcept;
  ~Aead();

  // nonce || ciphertext || tag. `context` is authenticated, not stored.
  Result<std::string> seal(ByteView context, ByteView plain) const;
  // Errc::corrupt if authentication fails.
  Result<std::string> open(ByteView context, ByteView sealed) const;
  // The same, into `plain`, whose size is that of `sealed` minus kOverhead.
  Status open(ByteView context, ByteView sealed, ByteSpan plain) const;

 private:
  struct State;
  explicit Aead(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rekeyfs::crypto
