#include "engine/crypto/block_cipher.h"

#include <cstring>

#include "engine/crypto/cipher_pool.h"

namespace rekeyfs::crypto {
namespace {

const char* algorithm_of(Suite suite) {
  return suite == Suite::chacha20_poly1305 ? "ChaCha20-Poly1305" : "AES-256-GCM";
}

template <std::size_t N>
std::array<std::byte, N> little_endian(std::uint64_t value) {
  static_assert(N >= 8);
  std::array<std::byte, N> bytes{};
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return bytes;
}

Nonce nonce_of(std::uint64_t counter) {
  return little_endian<Nonce{}.size()>(counter);
}

}  // namespace

bool is_known_suite(std::uint8_t number) {
  switch (static_cast<Suite>(number)) {
    case Suite::aes_256_gcm:
    case Suite::chacha20_poly1305:
    case Suite::plain_gmac:
      return true;
  }
  return false;
}

struct BlockCipher::State {
  Suite suite;
  std::unique_ptr<CipherPool> cipher;
};

BlockCipher::BlockCipher(std::unique_ptr<State> state) : state_(std::move(state)) {}
BlockCipher::BlockCipher(BlockCipher&&) noexcept = default;
BlockCipher& BlockCipher::operator=(BlockCipher&&) noexcept = default;
BlockCipher::~BlockCipher() = default;

Result<BlockCipher> BlockCipher::create(Suite suite, const Key& key) {
  if (!is_known_suite(static_cast<std::uint8_t>(suite)))
    return fail(Errc::wrong_version, "the cipher suite is unknown to this version of rekeyfs: use a newer one");
  RK_TRY_ASSIGN(auto cipher, CipherPool::create(algorithm_of(suite), key));
  return BlockCipher(std::make_unique<State>(State{suite, std::move(cipher)}));
}

// GMAC authenticates one string, so the context's size comes first to keep its border with the data. The tag is
// computed from the copy, so that it matches the stored bytes even if `plain` changes meanwhile.
Status BlockCipher::seal(std::uint64_t counter, ByteView context, ByteView plain, ByteSpan sealed, Tag& tag) const {
  const Nonce nonce = nonce_of(counter);
  if (state_->suite != Suite::plain_gmac) return state_->cipher->seal(nonce, {context}, plain, sealed, tag);
  if (plain.size() != sealed.size()) return fail(Errc::invalid, "a plain block and its stored form differ in size");
  if (plain.data() != sealed.data() && !plain.empty()) std::memcpy(sealed.data(), plain.data(), plain.size());
  return state_->cipher->seal(nonce, {little_endian<8>(context.size()), context, sealed}, {}, {}, tag);
}

Status BlockCipher::open(std::uint64_t counter, ByteView context, ByteView sealed, ByteSpan plain,
                         const Tag& tag) const {
  const Nonce nonce = nonce_of(counter);
  if (state_->suite != Suite::plain_gmac) return state_->cipher->open(nonce, {context}, sealed, plain, tag);
  if (plain.size() != sealed.size()) return fail(Errc::invalid, "a plain block and its stored form differ in size");
  RK_TRY(state_->cipher->open(nonce, {little_endian<8>(context.size()), context, sealed}, {}, {}, tag));
  if (plain.data() != sealed.data() && !plain.empty()) std::memcpy(plain.data(), sealed.data(), sealed.size());
  return {};
}

}  // namespace rekeyfs::crypto
