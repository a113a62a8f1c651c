// Aead: authenticated encryption of small records (catalog values, journal records, wrapped keys).
//
// AES-256-GCM. No caller ever chooses a nonce: seal() draws one and puts it in front. Two ways of drawing,
// by who may hold the key: `random` for a long-lived key (at most 2^32 seals), `counting` for a key that this
// object alone seals with in its whole life, because a fresh random salt made it (an epoch's): 4 random bytes drawn
// at creation and a 64-bit counter, which is faster and without that limit. Thread-safe.
#pragma once

#include <memory>

#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {

enum class NonceSource { random, counting };

class Aead {
 public:
  static constexpr std::size_t kOverhead = 12 + 16;  // nonce in front, tag behind

  static Result<Aead> create(const Key& key, NonceSource nonces);
  Aead(Aead&&) noexcept;
  Aead& operator=(Aead&&) noexcept;
  ~Aead();

  // nonce || ciphertext || tag. `context` is authenticated, not stored.
  Result<std::string> seal(ByteView context, ByteView plain) const;
  // Errc::corrupt when anything does not match.
  Result<std::string> open(ByteView context, ByteView sealed) const;
  // The same to where `plain` is, which has room for kOverhead bytes less than `sealed`.
  Status open(ByteView context, ByteView sealed, ByteSpan plain) const;

 private:
  struct State;
  explicit Aead(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rekeyfs::crypto
