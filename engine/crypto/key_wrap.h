// KeyWrap: wraps keys under another key with key commitment: unwrapping with any other key fails.
//
// AES-256-GCM alone is not key-committing: a ciphertext can be crafted that decrypts under two keys. Therefore HKDF
// derives two values from the wrapping key: the encryption key, and a commitment that is stored in front and compared
// in constant time ("key-committing AEAD by HKDF commitment", as in the AWS Encryption SDK's committing suites;
// draft-irtf-cfrg-aead-limits and RFC 9771 name the property). The nonce is random: at most 2^32 wraps per key.
// Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "engine/crypto/aead.h"

namespace rekeyfs::crypto {

class KeyWrap {
 public:
  static constexpr std::size_t kWrappedSize = sizeof(Digest) + Aead::kOverhead + kKeySize;  // 92 bytes

  // `purpose` names what is wrapped ("rekeyfs v1 data key"); a key wrapped for one purpose does not unwrap for another.
  static Result<KeyWrap> create(const Key& wrapping_key, std::string_view purpose);

  // commitment || nonce || encrypted key || tag. `context` is authenticated, not stored.
  Result<std::string> wrap(ByteView context, const Key& key) const;
  // Errc::wrong_secret if it was wrapped by another key or for another purpose; Errc::corrupt if it is damaged or was
  // wrapped for another context.
  Result<Key> unwrap(ByteView context, ByteView wrapped) const;

 private:
  KeyWrap(Key commitment, Aead aead) : commitment_(std::move(commitment)), aead_(std::move(aead)) {}

  Key commitment_;
  Aead aead_;
};

}  // namespace rekeyfs::crypto
