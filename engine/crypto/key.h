// Key: 256 secret bits in one owning place.
//
// Not copyable and not printable; compared in constant time; wiped when it goes. The bytes live in
// OpenSSL's secure heap (locked, guarded, left out of core dumps); secure_heap_init() makes it, once, at the
// start of a program. Raw bytes leave only through expose_key_bytes(), a name that can be searched for.
#pragma once

#include <cstddef>
#include <span>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::crypto {

inline constexpr std::size_t kKeySize = 32;

// Before any Key is made, single-threaded. Returns false if the memory could not be locked
// (RLIMIT_MEMLOCK): keys then live in unlocked memory, which the caller may want to log.
bool secure_heap_init();

class Key {
 public:
  static Result<Key> random();
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
  std::byte* bytes_;  // kKeySize bytes of the secure heap; null once moved from
};

}  // namespace rekeyfs::crypto
