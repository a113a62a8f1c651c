// KeyWrap: keys sealed by another key, so that no other key opens them to anything.
//
// AES-256-GCM alone is not key-committing: a ciphertext can be made that opens under two keys. So two values are
// derived from the wrapping key by HKDF, the key that seals and a commitment stored in front and compared in
// constant time ("key-committing AEAD by HKDF commitment", as in the AWS Encryption SDK's committing suites;
// draft-irtf-cfrg-aead-limits and RFC 9771 name the property). The nonce is random: at most 2^32 wraps by one key.
// Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "engine/crypto/aead.h"

namespace rekeyfs::crypto {

class KeyWrap {
 public:
  static constexpr std::size_t kWrappedSize = sizeof(Digest) + Aead::kOverhead + kKeySize;  // 92 bytes

  // `purpose` says what is wrapped ("rekeyfs v1 data key"); wraps made for one purpose do not open for another.
  static Result<KeyWrap> create(const Key& wrapping_key, std::string_view purpose);

  // commitment || nonce || sealed key || tag. `context` is authenticated, not stored.
  Result<std::string> wrap(ByteView context, const Key& key) const;
  // Errc::wrong_secret if another key (or one for another purpose) wrapped it; Errc::corrupt if it is damaged or
  // was wrapped for another context.
  Result<Key> unwrap(ByteView context, ByteView wrapped) const;

 private:
  KeyWrap(Key commitment, Aead aead) : commitment_(std::move(commitment)), aead_(std::move(aead)) {}

  Key commitment_;
  Aead aead_;
};

}  // namespace rekeyfs::crypto
