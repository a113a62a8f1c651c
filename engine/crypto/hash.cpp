#include "engine/crypto/hash.h"

#include <cerrno>
#include <cstring>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <sys/random.h>

#include "engine/crypto/context_pool.h"
#include "engine/crypto/openssl.h"

namespace rekeyfs::crypto {
namespace {

// OSSL_PARAM is not const-correct; OpenSSL only reads these values.
OSSL_PARAM text_parameter(const char* name, const char* text) {
  return OSSL_PARAM_construct_utf8_string(name, const_cast<char*>(text), 0);
}
OSSL_PARAM bytes_parameter(const char* name, ByteView bytes) {
  // A null pointer would mean "not set", even for an empty value.
  static constexpr std::byte kNothing{};
  const void* data = bytes.empty() ? &kNothing : bytes.data();
  return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), bytes.size());
}

// Runs a key derivation function and returns its output as a key.
Result<Key> run_kdf(const char* name, const OSSL_PARAM* parameters) {
  KdfPtr kdf(EVP_KDF_fetch(nullptr, name, nullptr));
  if (!kdf) return fail(algorithm_missing(name));
  KdfContextPtr context(EVP_KDF_CTX_new(kdf.get()));
  require(context != nullptr);
  return Key::filled_by([&](ByteSpan derived) -> Status {
    require(EVP_KDF_derive(context.get(), as_uchar(derived), derived.size(), parameters) == 1);
    return {};
  });
}

bool is_within_bounds(ScryptCost cost) {
  return cost.log2_n >= 10 && cost.log2_n <= 22 && cost.r >= 1 && cost.r <= 32 && cost.p >= 1 && cost.p <= 16;
}

}  // namespace

// getrandom(2) instead of OpenSSL's generator: it does not repeat after fork() or after a virtual machine was cloned.
Status fill_random(ByteSpan out) {
  while (!out.empty()) {
    ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(error_from_errno(errno, "read random bytes"));
    out = out.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

Result<Uuid> random_uuid() {
  Uuid id;
  RK_TRY(fill_random(id));
  id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x40};  // version
  id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};  // variant
  return id;
}

Result<Key> derive_key(const Key& from, ByteView salt, std::string_view info) {
  return derive_key(ByteView(from.expose_key_bytes()), salt, info);
}

Result<Key> derive_key(ByteView from, ByteView salt, std::string_view info) {
  if (from.empty()) return fail(Errc::invalid, "a key cannot be derived from an empty secret");
  const std::array parameters{
      text_parameter(OSSL_KDF_PARAM_DIGEST, "SHA256"),
      bytes_parameter(OSSL_KDF_PARAM_KEY, from),
      bytes_parameter(OSSL_KDF_PARAM_SALT, salt),
      bytes_parameter(OSSL_KDF_PARAM_INFO, as_bytes(info)),
      OSSL_PARAM_construct_end(),
  };
  return run_kdf("HKDF", parameters.data());
}

Result<Key> derive_key_from_passphrase(std::string_view passphrase, ByteView salt, ScryptCost cost) {
  if (passphrase.empty()) return fail(Errc::invalid, "the passphrase is empty: give one");
  if (!is_within_bounds(cost))
    return fail(Errc::invalid, "the scrypt cost is out of bounds: log2(N) must be 10 to 22, r 1 to 32, p 1 to 16");
  std::uint64_t n = std::uint64_t{1} << cost.log2_n;
  std::uint64_t r = cost.r;
  std::uint64_t p = cost.p;
  std::uint64_t most_memory = 128 * r * (n + p + 2);  // V, B and the working blocks of RFC 7914
  const std::array parameters{
      bytes_parameter(OSSL_KDF_PARAM_PASSWORD, as_bytes(passphrase)),
      bytes_parameter(OSSL_KDF_PARAM_SALT, salt),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_R, &r),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_P, &p),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &most_memory),
      OSSL_PARAM_construct_end(),
  };
  return run_kdf("SCRYPT", parameters.data());
}

// Contexts are reused by initializing them without a key, which restores the state after the key setup: 0.2 us for 100
// bytes, against 0.5 us for duplicating a keyed context per message (measured, OpenSSL 3.0).
struct Mac::State {
  MacContextPtr prototype;  // keyed, never updated
  ContextPool<MacContextPtr> pool;
};

Mac::Mac(std::unique_ptr<State> state) : state_(std::move(state)) {}
Mac::Mac(Mac&&) noexcept = default;
Mac& Mac::operator=(Mac&&) noexcept = default;
Mac::~Mac() = default;

Result<Mac> Mac::create(const Key& key) {
  MacPtr hmac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  if (!hmac) return fail(algorithm_missing("HMAC"));
  auto state = std::make_unique<State>();
  state->prototype.reset(EVP_MAC_CTX_new(hmac.get()));
  const std::array parameters{text_parameter(OSSL_MAC_PARAM_DIGEST, "SHA256"), OSSL_PARAM_construct_end()};
  ByteView bytes = key.expose_key_bytes();
  require(state->prototype && EVP_MAC_init(state->prototype.get(), as_uchar(bytes), bytes.size(), parameters.data()) == 1);
  return Mac(std::move(state));
}

Digest Mac::digest(ByteView first, ByteView second) const {
  auto lease = state_->pool.take();
  if (lease.get() == nullptr) lease.fill(MacContextPtr(EVP_MAC_CTX_dup(state_->prototype.get())));
  require(lease.get() != nullptr);
  Digest digest;
  std::size_t size = 0;
  require(EVP_MAC_init(lease.get(), nullptr, 0, nullptr) == 1 &&
              EVP_MAC_update(lease.get(), as_uchar(first), first.size()) == 1 &&
              EVP_MAC_update(lease.get(), as_uchar(second), second.size()) == 1 &&
              EVP_MAC_final(lease.get(), as_uchar(ByteSpan(digest)), &size, digest.size()) == 1);
  return digest;
}

Tag Mac::tag(ByteView first, ByteView second) const {
  Digest whole = digest(first, second);
  Tag tag;
  std::memcpy(tag.data(), whole.data(), tag.size());
  return tag;
}

bool equal_constant_time(ByteView a, ByteView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

struct Sha256::State {
  DigestContextPtr context{EVP_MD_CTX_new()};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  require(state_->context && EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

void Sha256::update(ByteView bytes) {
  require(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1);
}

Digest Sha256::finish() {
  Digest digest;
  require(EVP_DigestFinal_ex(state_->context.get(), as_uchar(ByteSpan(digest)), nullptr) == 1);
  return digest;
}

}  // namespace rekeyfs::crypto
