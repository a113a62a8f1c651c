// Key: a 256-bit secret with one owner.
//
// Not copyable and not printable; compared in constant time; wiped by the destructor. Its bytes are in secret memory
// (engine/base/secret_memory.h). After keep_openssl_in_secret_memory(), so is everything that OpenSSL computes from
// them: expanded keys and keyed states. Raw bytes are accessible only through expose_key_bytes(), a name that can be
// searched for.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::crypto {

inline constexpr std::size_t kKeySize = 32;

// Call before any use of OpenSSL: OpenSSL keeps the allocator that it had at its first allocation. If a program that
// embeds the engine used OpenSSL earlier, this is logged. Idempotent.
void keep_openssl_in_secret_memory();

class Key {
 public:
  static Result<Key> random();
  // `fill` writes all bytes in place, so that there is no copy to wipe.
  static Result<Key> filled_by(const std::function<Status(std::span<std::byte, kKeySize>)>& fill);
  static Result<Key> from_bytes(std::span<const std::byte, kKeySize> bytes);
  Key(Key&& other) noexcept;
  Key& operator=(Key&& other) noexcept;
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
  ~Key();

  // A moved-from key has no bytes. Comparing it or accessing its bytes is a programming error and ends the program,
  // because continuing would encrypt with a key that anyone can guess.
  bool operator==(const Key& other) const;  // constant time
  std::span<const std::byte, kKeySize> expose_key_bytes() const;

 private:
  explicit Key(std::byte* bytes) : bytes_(bytes) {}
  std::byte* bytes_;  // kKeySize bytes of secret memory; null after a move
};

}  // namespace rekeyfs::crypto
