// CipherPool: one AEAD cipher under one key, for any number of threads. The basis of Aead and BlockCipher.
//
// For engine/crypto only: callers pass nonces here and nowhere above. The cipher lookup and the key schedule are done
// once per context; contexts are pooled, so that an operation only sets the nonce.
#pragma once

#include <initializer_list>
#include <memory>

#include "engine/crypto/context_pool.h"
#include "engine/crypto/hash.h"
#include "engine/crypto/openssl.h"

namespace rekeyfs::crypto {

using Nonce = std::array<std::byte, 12>;

class CipherPool {
 public:
  // `algorithm`: OpenSSL's name of a cipher with 256-bit keys, 96-bit nonces and 128-bit tags.
  static Result<std::unique_ptr<CipherPool>> create(const char* algorithm, const Key& key);

  // The pieces in `authenticated` are authenticated as their concatenation. `sealed` has the size of `plain` and may be
  // the same memory.
  Status seal(const Nonce& nonce, std::initializer_list<ByteView> authenticated, ByteView plain, ByteSpan sealed,
              Tag& tag);
  // Errc::corrupt, with zeros in `plain`, if authentication fails.
  Status open(const Nonce& nonce, std::initializer_list<ByteView> authenticated, ByteView sealed, ByteSpan plain,
              const Tag& tag);

 private:
  using Lease = ContextPool<CipherContextPtr>::Lease;

  CipherPool(CipherPtr cipher, Key key) : cipher_(std::move(cipher)), key_(std::move(key)) {}
  void make_ready(Lease& lease) const;

  const CipherPtr cipher_;
  const Key key_;
  ContextPool<CipherContextPtr> pool_;
};

}  // namespace rekeyfs::crypto
