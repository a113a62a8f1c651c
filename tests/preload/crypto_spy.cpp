// A preload library for tests: intercepts rekeyfs's calls of OpenSSL and records them in files.
//
// $REKEYFS_TEST_SPY_KEYS: every passphrase, key and key material, 64 bytes per record: its length (1 byte), then at
// most its first 63 bytes. It is written directly from its memory, so that the observed process contains no additional
// copy. $REKEYFS_TEST_SPY_NONCES: the key and the nonce of every encryption, 44 bytes per record (struct Sealing).
//
// A record is in its file before the encryption begins, so a kill loses none. A call of an OpenSSL function that could
// use a cipher unobserved ends the process.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>

#include <dlfcn.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

[[noreturn]] void stop(const char* why) {
  std::fprintf(stderr, "crypto_spy: %s\n", why);
  std::abort();
}

template <typename Function>
Function* next(const char* name) {
  void* const found = ::dlsym(RTLD_NEXT, name);
  if (found == nullptr) stop(name);
  return reinterpret_cast<Function*>(found);
}

// Opened for each record, because the daemon closes what it has inherited, and the number may then be another file's.
void append(const char* variable, const iovec* pieces, int count, std::size_t size) {
  const char* const path = std::getenv(variable);
  if (path == nullptr) return;
  const int file = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0 || ::writev(file, pieces, count) != static_cast<ssize_t>(size)) stop("a record cannot be written");
  ::close(file);
}

void note_secret(const void* bytes, std::size_t size) {
  static constexpr std::size_t kMost = 63;
  static const std::array<unsigned char, kMost> kZeros{};
  if (bytes == nullptr || size == 0) return;
  const auto length = static_cast<unsigned char>(size < kMost ? size : kMost);
  const iovec pieces[] = {{const_cast<unsigned char*>(&length), 1},
                          {const_cast<void*>(bytes), length},
                          {const_cast<unsigned char*>(kZeros.data()), kMost - length}};
  append("REKEYFS_TEST_SPY_KEYS", pieces, 3, kMost + 1);
}

using Key = std::array<unsigned char, 32>;

struct Sealing {
  Key key;
  std::array<unsigned char, 12> nonce;
};
static_assert(sizeof(Sealing) == 44);

std::mutex mutex;
std::map<const EVP_CIPHER_CTX*, Key>& keys() {
  static auto& all = *new std::map<const EVP_CIPHER_CTX*, Key>;
  return all;
}

bool notes_nonces() {
  static const bool asked = std::getenv("REKEYFS_TEST_SPY_NONCES") != nullptr;
  return asked;
}

void note_key(const EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const unsigned char* key) {
  note_secret(key, 32);
  if (!notes_nonces()) return;
  if (::EVP_CIPHER_get_key_length(cipher) != 32 || ::EVP_CIPHER_get_iv_length(cipher) != 12)
    stop("a cipher with another size of key or nonce");
  const std::lock_guard lock(mutex);
  std::memcpy(keys()[context].data(), key, sizeof(Key));
}

void note_sealing(const EVP_CIPHER_CTX* context, const unsigned char* nonce) {
  if (!notes_nonces()) return;
  Sealing sealing{};
  {
    const std::lock_guard lock(mutex);
    const auto key = keys().find(context);
    if (key == keys().end()) stop("a sealing with a key that was not seen");
    sealing.key = key->second;
  }
  std::memcpy(sealing.nonce.data(), nonce, sealing.nonce.size());
  const iovec piece{&sealing, sizeof(sealing)};
  append("REKEYFS_TEST_SPY_NONCES", &piece, 1, sizeof(sealing));
}

// Within a derivation by HKDF its salt is the key of an HMAC, and no secret.
thread_local std::string_view salt_of_derivation;

std::string_view value_of(const OSSL_PARAM* parameters, std::string_view name) {
  for (const OSSL_PARAM* parameter = parameters; parameter != nullptr && parameter->key != nullptr; ++parameter)
    if (parameter->key == name) return {static_cast<const char*>(parameter->data), parameter->data_size};
  return {};
}

}  // namespace

extern "C" {

int EVP_EncryptInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const unsigned char* key,
                        const unsigned char* nonce, const OSSL_PARAM* parameters) {
  static auto* const real = next<decltype(EVP_EncryptInit_ex2)>("EVP_EncryptInit_ex2");
  if (key != nullptr) note_key(context, cipher, key);
  if (nonce != nullptr) note_sealing(context, nonce);
  return real(context, cipher, key, nonce, parameters);
}

int EVP_CipherInit_ex2(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, const unsigned char* key,
                       const unsigned char* nonce, int encrypts, const OSSL_PARAM* parameters) {
  static auto* const real = next<decltype(EVP_CipherInit_ex2)>("EVP_CipherInit_ex2");
  if (key != nullptr) note_key(context, cipher, key);
  if (nonce != nullptr && encrypts == 1) note_sealing(context, nonce);
  return real(context, cipher, key, nonce, encrypts, parameters);
}

void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX* context) {
  static auto* const real = next<decltype(EVP_CIPHER_CTX_free)>("EVP_CIPHER_CTX_free");
  {
    const std::lock_guard lock(mutex);
    keys().erase(context);
  }
  real(context);
}

int EVP_KDF_derive(EVP_KDF_CTX* context, unsigned char* key, std::size_t size, const OSSL_PARAM* parameters) {
  static auto* const real = next<decltype(EVP_KDF_derive)>("EVP_KDF_derive");
  for (const char* name : {OSSL_KDF_PARAM_KEY, OSSL_KDF_PARAM_PASSWORD}) {
    const std::string_view secret = value_of(parameters, name);
    note_secret(secret.data(), secret.size());
  }
  salt_of_derivation = value_of(parameters, OSSL_KDF_PARAM_SALT);
  const int done = real(context, key, size, parameters);
  salt_of_derivation = {};
  // A commitment to a key stands in front of what it wraps, for all to see (engine/crypto/key_wrap.h).
  if (done == 1 && !value_of(parameters, OSSL_KDF_PARAM_INFO).ends_with(": commitment")) note_secret(key, size);
  return done;
}

int EVP_MAC_init(EVP_MAC_CTX* context, const unsigned char* key, std::size_t size, const OSSL_PARAM* parameters) {
  static auto* const real = next<decltype(EVP_MAC_init)>("EVP_MAC_init");
  if (key != nullptr && std::string_view(reinterpret_cast<const char*>(key), size) != salt_of_derivation)
    note_secret(key, size);
  return real(context, key, size, parameters);
}

#define NOT_SEEN(name, ...)                                          \
  int name(__VA_ARGS__) {                                            \
    stop("the engine uses " #name ", which the spy does not watch"); \
  }
NOT_SEEN(EVP_EncryptInit, EVP_CIPHER_CTX*, const EVP_CIPHER*, const unsigned char*, const unsigned char*)
NOT_SEEN(EVP_EncryptInit_ex, EVP_CIPHER_CTX*, const EVP_CIPHER*, ENGINE*, const unsigned char*, const unsigned char*)
NOT_SEEN(EVP_CipherInit, EVP_CIPHER_CTX*, const EVP_CIPHER*, const unsigned char*, const unsigned char*, int)
NOT_SEEN(EVP_CipherInit_ex, EVP_CIPHER_CTX*, const EVP_CIPHER*, ENGINE*, const unsigned char*, const unsigned char*,
         int)
NOT_SEEN(EVP_CIPHER_CTX_copy, EVP_CIPHER_CTX*, const EVP_CIPHER_CTX*)
NOT_SEEN(EVP_CIPHER_CTX_set_params, EVP_CIPHER_CTX*, const OSSL_PARAM*)

}  // extern "C"
