// Key: 256 secret bits in one owning place.
//
// Not copyable and not printable; compared in constant time; wiped when it goes. The bytes live in secret memory
// (engine/base/secret_memory.h), and so does what OpenSSL computes from them, its expanded keys and keyed states, after
// keep_openssl_in_secret_memory(). Raw bytes leave only through expose_key_bytes(), a name that can be searched for.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::crypto {

inline constexpr std::size_t kKeySize = 32;

// Before OpenSSL is used in any way: from its first allocation on it stays with the allocator it has, which a program
// that embeds the engine may have made sure of already; that is logged. Any number of times.
void keep_openssl_in_secret_memory();

class Key {
 public:
  static Result<Key> random();
  // `fill` writes all of the bytes where they stay, so that no copy has to be wiped.
  static Result<Key> filled_by(const std::function<Status(std::span<std::byte, kKeySize>)>& fill);
  static Result<Key> from_bytes(std::span<const std::byte, kKeySize> bytes);
  Key(Key&& other) noexcept;
  Key& operator=(Key&& other) noexcept;
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;
  ~Key();

  // A moved-from key has no bytes: to compare it or to ask for them is a programming error that ends the program,
  // since going on would seal with a key that anybody can guess.
  bool operator==(const Key& other) const;  // constant time
  std::span<const std::byte, kKeySize> expose_key_bytes() const;

 private:
  explicit Key(std::byte* bytes) : bytes_(bytes) {}
  std::byte* bytes_;  // kKeySize bytes of secret memory; null once moved from
};

}  // namespace rekeyfs::crypto
