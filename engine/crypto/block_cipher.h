// BlockCipher: encrypts and decrypts blocks under one epoch key (the key of one layer in one mount).
//
// The nonce is `counter` (96 bits, little-endian, upper bits zero). The caller guarantees that a counter is used for at
// most one seal() during the lifetime of the key; this is the purpose of an epoch key. Thread-safe: each concurrent
// caller uses its own pooled context.
#pragma once

#include <memory>

#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {

enum class Suite : std::uint8_t {  // numbers on disk, never reused
  aes_256_gcm = 1,
  chacha20_poly1305 = 2,
  plain_gmac = 3,  // not encrypted: the block is stored as it is, authenticated by AES-256-GMAC
};
bool is_known_suite(std::uint8_t number);

class BlockCipher {
 public:
  static Result<BlockCipher> create(Suite suite, const Key& key);
  BlockCipher(BlockCipher&&) noexcept;
  BlockCipher& operator=(BlockCipher&&) noexcept;
  ~BlockCipher();

  // `sealed` has the size of `plain` and may be the same memory. `tag` authenticates `sealed` and `context`.
  Status seal(std::uint64_t counter, ByteView context, ByteView plain, ByteSpan sealed, Tag& tag) const;
  // The inverse. Errc::corrupt, with unspecified bytes in `plain`, if authentication fails.
  Status open(std::uint64_t counter, ByteView context, ByteView sealed, ByteSpan plain, const Tag& tag) const;

 private:
  struct State;
  explicit BlockCipher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rekeyfs::crypto
