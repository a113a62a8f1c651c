#include "engine/crypto/aead.h"

#include <atomic>
#include <cstring>

#include "engine/crypto/cipher_pool.h"

namespace rekeyfs::crypto {
namespace {

constexpr std::size_t kNonceSize = Nonce{}.size();
constexpr std::size_t kTagSize = Tag{}.size();
static_assert(Aead::kOverhead == kNonceSize + kTagSize);

ByteSpan as_writable_bytes(std::string& text) {
  return {reinterpret_cast<std::byte*>(text.data()), text.size()};
}

}  // namespace

struct Aead::State {
  std::unique_ptr<CipherPool> cipher;
  NonceSource nonces;
  std::array<std::byte, 4> nonce_start{};    // counting: first bytes of the nonce, random
  std::atomic<std::uint64_t> next_nonce{0};  // counting: the other eight bytes

  Result<Nonce> draw_nonce();
};

Result<Nonce> Aead::State::draw_nonce() {
  Nonce nonce;
  if (nonces == NonceSource::random) {
    RK_TRY(fill_random(nonce));
    return nonce;
  }
  const std::uint64_t number = next_nonce.fetch_add(1, std::memory_order_relaxed);
  std::memcpy(nonce.data(), nonce_start.data(), nonce_start.size());
  for (std::size_t i = 0; i < 8; ++i) nonce[nonce_start.size() + i] = static_cast<std::byte>(number >> (8 * i));
  return nonce;
}

Aead::Aead(std::unique_ptr<State> state) : state_(std::move(state)) {}
Aead::Aead(Aead&&) noexcept = default;
Aead& Aead::operator=(Aead&&) noexcept = default;
Aead::~Aead() = default;

Result<Aead> Aead::create(const Key& key, NonceSource nonces) {
  auto state = std::make_unique<State>();
  RK_TRY_ASSIGN(state->cipher, CipherPool::create("AES-256-GCM", key));
  state->nonces = nonces;
  if (nonces == NonceSource::counting) RK_TRY(fill_random(state->nonce_start));
  return Aead(std::move(state));
}

Result<std::string> Aead::seal(ByteView context, ByteView plain) const {
  RK_TRY_ASSIGN(const Nonce nonce, state_->draw_nonce());
  std::string sealed(kOverhead + plain.size(), '\0');
  ByteSpan out = as_writable_bytes(sealed);
  Tag tag;
  RK_TRY(state_->cipher->seal(nonce, {context}, plain, out.subspan(kNonceSize, plain.size()), tag));
  std::memcpy(out.data(), nonce.data(), kNonceSize);
  std::memcpy(out.last(kTagSize).data(), tag.data(), kTagSize);
  return sealed;
}

Result<std::string> Aead::open(ByteView context, ByteView sealed) const {
  if (sealed.size() < kOverhead) return fail(Errc::corrupt, "a sealed record is shorter than its nonce and tag");
  std::string plain(sealed.size() - kOverhead, '\0');
  RK_TRY(open(context, sealed, as_writable_bytes(plain)));
  return plain;
}

Status Aead::open(ByteView context, ByteView sealed, ByteSpan plain) const {
  if (sealed.size() != plain.size() + kOverhead) return fail(Errc::corrupt, "a sealed record has the wrong size");
  Nonce nonce;
  Tag tag;
  std::memcpy(nonce.data(), sealed.data(), kNonceSize);
  std::memcpy(tag.data(), sealed.last(kTagSize).data(), kTagSize);
  return state_->cipher->open(nonce, {context}, sealed.subspan(kNonceSize, plain.size()), plain, tag);
}

}  // namespace rekeyfs::crypto
