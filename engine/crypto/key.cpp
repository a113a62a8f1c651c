#include "engine/crypto/key.h"

#include <cstdlib>
#include <cstring>

#include <openssl/crypto.h>

#include "engine/base/log.h"
#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {
namespace {

// Room for 131072 keys; half of the 8 MiB an ordinary process may lock on Debian 12.
constexpr std::size_t kSecureHeapSize = std::size_t{4} << 20;

Result<std::byte*> allocate() {
  void* bytes = OPENSSL_secure_malloc(kKeySize);
  if (bytes == nullptr)
    return fail(Errc::no_memory, "the memory for keys is used up: close some images, or restart, and try again");
  return static_cast<std::byte*>(bytes);
}

void wipe_and_free(std::byte* bytes) {
  if (bytes != nullptr) OPENSSL_secure_clear_free(bytes, kKeySize);
}

}  // namespace

bool secure_heap_init() {
  if (CRYPTO_secure_malloc_initialized() != 0) return true;
  return CRYPTO_secure_malloc_init(kSecureHeapSize, kKeySize) == 1;
}

Result<Key> Key::random() {
  RK_TRY_ASSIGN(std::byte * bytes, allocate());
  Key key(bytes);
  RK_TRY(fill_random({bytes, kKeySize}));
  return key;
}

Result<Key> Key::from_bytes(std::span<const std::byte, kKeySize> bytes) {
  RK_TRY_ASSIGN(std::byte * own, allocate());
  std::memcpy(own, bytes.data(), kKeySize);
  return Key(own);
}

Key::Key(Key&& other) noexcept : bytes_(std::exchange(other.bytes_, nullptr)) {}

Key& Key::operator=(Key&& other) noexcept {
  if (this != &other) {
    wipe_and_free(bytes_);
    bytes_ = std::exchange(other.bytes_, nullptr);
  }
  return *this;
}

Key::~Key() {
  wipe_and_free(bytes_);
}

bool Key::operator==(const Key& other) const {
  return equal_constant_time(expose_key_bytes(), other.expose_key_bytes());
}

std::span<const std::byte, kKeySize> Key::expose_key_bytes() const {
  if (bytes_ == nullptr) {
    log::error(
        "a key was used after it was moved away, which is an error in rekeyfs: stopping before anything is sealed");
    std::abort();
  }
  return std::span<const std::byte, kKeySize>(bytes_, kKeySize);
}

}  // namespace rekeyfs::crypto
