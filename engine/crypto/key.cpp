#include "engine/crypto/key.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include <openssl/crypto.h>

#include "engine/base/log.h"
#include "engine/base/secret_memory.h"
#include "engine/crypto/hash.h"

namespace rekeyfs::crypto {
namespace {

// Ignores the source location that OpenSSL passes.
void* openssl_allocate(std::size_t size, const char*, int) {
  return secret_memory::allocate(size);
}

void openssl_release(void* memory, const char*, int) {
  secret_memory::release(memory);
}

void* openssl_resize(void* memory, std::size_t size, const char*, int) {
  void* const resized = secret_memory::allocate(size);
  if (resized == nullptr && size > 0) return nullptr;  // `memory` stays valid, as with realloc()
  if (resized != nullptr && memory != nullptr)
    std::memcpy(resized, memory, std::min(size, secret_memory::size_of(memory)));
  secret_memory::release(memory);
  return resized;
}

bool set_openssl_allocator() {
  if (CRYPTO_set_mem_functions(openssl_allocate, openssl_resize, openssl_release) == 1) return true;
  log::info("keys expanded by OpenSSL may be swapped to disk: OpenSSL was in use before the engine set its allocator");
  return false;
}

}  // namespace

void keep_openssl_in_secret_memory() {
  [[maybe_unused]] static const bool once = set_openssl_allocator();
}

Result<Key> Key::filled_by(const std::function<Status(std::span<std::byte, kKeySize>)>& fill) {
  auto* const bytes = static_cast<std::byte*>(secret_memory::allocate(kKeySize));
  if (bytes == nullptr) throw std::bad_alloc();
  Key key(bytes);
  RK_TRY(fill(std::span<std::byte, kKeySize>(bytes, kKeySize)));
  return key;
}

Result<Key> Key::random() {
  return filled_by(fill_random);
}

Result<Key> Key::from_bytes(std::span<const std::byte, kKeySize> bytes) {
  return filled_by([&](ByteSpan own) -> Status {
    std::memcpy(own.data(), bytes.data(), kKeySize);
    return {};
  });
}

Key::Key(Key&& other) noexcept : bytes_(std::exchange(other.bytes_, nullptr)) {}

Key& Key::operator=(Key&& other) noexcept {
  if (this != &other) {
    secret_memory::release(bytes_);
    bytes_ = std::exchange(other.bytes_, nullptr);
  }
  return *this;
}

Key::~Key() {
  secret_memory::release(bytes_);
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
