// BlockCipher: seals and opens blocks under one epoch key (the key of one layer in one mount).
//
// The nonce is `counter` (96 bits, little-endian, upper bits zero): the caller guarantees that a counter is
// used for one seal() only during the life of the key, which is what an epoch key is for. Thread-safe; a
// context per concurrent caller is made on demand and kept.
#pragma once

#include <memory>

#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {

enum class Suite : std::uint8_t {  // numbers on disk, never reused
  aes_256_gcm = 1,
  chacha20_poly1305 = 2,
  plain_gmac = 3,  // no secrecy: the block is stored as it is and authenticated by AES-256-GMAC
};
bool is_known_suite(std::uint8_t number);

class BlockCipher {
 public:
  static Result<BlockCipher> create(Suite suite, const Key& key);
  BlockCipher(BlockCipher&&) noexcept;
  BlockCipher& operator=(BlockCipher&&) noexcept;
  ~BlockCipher();

  // `sealed` has the size of `plain` and may be the same memory; `tag` authenticates it and `context`.
  Status seal(std::uint64_t counter, ByteView context, ByteView plain, ByteSpan sealed, Tag& tag) const;
  // The inverse; Errc::corrupt (and unspecified bytes in `plain`) when anything does not match.
  Status open(std::uint64_t counter, ByteView context, ByteView sealed, ByteSpan plain, const Tag& tag) const;

 private:
  struct State;
  explicit BlockCipher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rekeyfs::crypto
