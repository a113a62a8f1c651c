#include "engine/crypto/key_wrap.h"

namespace rekeyfs::crypto {
namespace {

std::string info_of(std::string_view purpose, std::string_view part) {
  return std::string(purpose).append(": ").append(part);
}

}  // namespace

Result<KeyWrap> KeyWrap::create(const Key& wrapping_key, std::string_view purpose) {
  RK_TRY_ASSIGN(Key sealing, derive_key(wrapping_key, {}, info_of(purpose, "wrapping")));
  RK_TRY_ASSIGN(Key commitment, derive_key(wrapping_key, {}, info_of(purpose, "commitment")));
  RK_TRY_ASSIGN(Aead aead, Aead::create(sealing, NonceSource::random));
  return KeyWrap(std::move(commitment), std::move(aead));
}

Result<std::string> KeyWrap::wrap(ByteView context, const Key& key) const {
  RK_TRY_ASSIGN(std::string sealed, aead_.seal(context, key.expose_key_bytes()));
  return std::string(as_text(commitment_.expose_key_bytes())) + sealed;
}

Result<Key> KeyWrap::unwrap(ByteView context, ByteView wrapped) const {
  if (wrapped.size() != kWrappedSize) return fail(Errc::corrupt, "a wrapped key has the wrong size: it is damaged");
  if (!equal_constant_time(wrapped.first(kKeySize), commitment_.expose_key_bytes()))
    return fail(Errc::wrong_secret, "the given key does not unwrap the wrapped key");
  return Key::filled_by([&](ByteSpan key) { return aead_.open(context, wrapped.subspan(kKeySize), key); });
}

}  // namespace rekeyfs::crypto
