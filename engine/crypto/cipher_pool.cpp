#include "engine/crypto/cipher_pool.h"

#include <climits>
#include <string>

#include <openssl/crypto.h>
#include <openssl/err.h>

namespace rekeyfs::crypto {
namespace {

enum class Direction { open = 0, seal = 1 };  // OpenSSL's values

// Runs all steps of an operation except the last. A context is keyed for both directions.
bool run(EVP_CIPHER_CTX* context, Direction direction, const Nonce& nonce,
         std::initializer_list<ByteView> authenticated, ByteView in, ByteSpan out) {
  if (EVP_CipherInit_ex2(context, nullptr, nullptr, as_uchar(ByteView(nonce)), static_cast<int>(direction), nullptr) !=
      1)
    return false;
  int size = 0;
  for (ByteView piece : authenticated) {
    if (!piece.empty() &&
        EVP_CipherUpdate(context, nullptr, &size, as_uchar(piece), static_cast<int>(piece.size())) != 1)
      return false;
  }
  return in.empty() || EVP_CipherUpdate(context, as_uchar(out), &size, as_uchar(in), static_cast<int>(in.size())) == 1;
}

Status check_sizes(std::initializer_list<ByteView> authenticated, ByteView in, ByteSpan out) {
  if (in.size() != out.size())
    return fail(Errc::invalid, "the output of sealing must have the size of its input");
  bool fits = in.size() <= INT_MAX;
  for (ByteView piece : authenticated) fits = fits && piece.size() <= INT_MAX;
  if (!fits) return fail(Errc::invalid, "one call cannot seal more than 2 GiB");
  return {};
}

}  // namespace

Result<std::unique_ptr<CipherPool>> CipherPool::create(const char* algorithm, const Key& key) {
  CipherPtr cipher(EVP_CIPHER_fetch(nullptr, algorithm, nullptr));
  if (!cipher) return fail(algorithm_missing(algorithm));
  RK_TRY_ASSIGN(Key own, Key::from_bytes(key.expose_key_bytes()));
  return std::unique_ptr<CipherPool>(new CipherPool(std::move(cipher), std::move(own)));
}

Status CipherPool::seal(const Nonce& nonce, std::initializer_list<ByteView> authenticated, ByteView plain,
                        ByteSpan sealed, Tag& tag) {
  RK_TRY(check_sizes(authenticated, plain, sealed));
  Lease lease = pool_.take();
  make_ready(lease);
  std::array<unsigned char, 16> rest;  // both ciphers output nothing in the final step
  int size = 0;
  require(run(lease.get(), Direction::seal, nonce, authenticated, plain, sealed) &&
          EVP_CipherFinal_ex(lease.get(), rest.data(), &size) == 1 &&
          EVP_CIPHER_CTX_ctrl(lease.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag.size()), tag.data()) == 1);
  return {};
}

Status CipherPool::open(const Nonce& nonce, std::initializer_list<ByteView> authenticated, ByteView sealed,
                        ByteSpan plain, const Tag& tag) {
  RK_TRY(check_sizes(authenticated, sealed, plain));
  Lease lease = pool_.take();
  make_ready(lease);
  Tag expected = tag;  // OpenSSL wants a non-const pointer
  require(run(lease.get(), Direction::open, nonce, authenticated, sealed, plain) &&
          EVP_CIPHER_CTX_ctrl(lease.get(), EVP_CTRL_AEAD_SET_TAG, static_cast<int>(expected.size()), expected.data()) == 1);
  std::array<unsigned char, 16> rest;
  int size = 0;
  if (EVP_CipherFinal_ex(lease.get(), rest.data(), &size) != 1) {
    ERR_clear_error();
    OPENSSL_cleanse(plain.data(), plain.size());  // unverified bytes must not be returned
    return fail(Errc::corrupt, "sealed data does not verify: it is damaged, forged or from another place");
  }
  return {};
}

void CipherPool::make_ready(Lease& lease) const {
  if (lease.get() != nullptr) return;
  CipherContextPtr context(EVP_CIPHER_CTX_new());
  ByteView key = key_.expose_key_bytes();
  require(context && EVP_EncryptInit_ex2(context.get(), cipher_.get(), as_uchar(key), nullptr, nullptr) == 1);
  lease.fill(std::move(context));
}

}  // namespace rekeyfs::crypto
