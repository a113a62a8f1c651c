// Credential: how a store is unlocked, the bytes of a passphrase or of a key file.
//
// Move-only, so that one place owns the bytes; wiped when it goes.
#pragma once

#include <cstdint>
#include <string>

namespace rekeyfs {

class Credential {
 public:
  enum class Kind : std::uint8_t { passphrase = 1, key_file = 2 };  // numbers on disk

  Credential(Kind kind, std::string bytes) : kind_(kind), bytes_(std::move(bytes)) {}
  Credential(Credential&& other) noexcept : kind_(other.kind_), bytes_(std::move(other.bytes_)) {}
  Credential& operator=(Credential&&) = delete;
  Credential(const Credential&) = delete;
  Credential& operator=(const Credential&) = delete;
  ~Credential() {
    volatile char* bytes = bytes_.data();  // volatile: the compiler may not drop the wiping
    for (std::size_t i = 0; i < bytes_.size(); ++i) bytes[i] = 0;
  }

  Kind kind() const { return kind_; }
  const std::string& expose_bytes() const { return bytes_; }

 private:
  Kind kind_;
  std::string bytes_;
};

}  // namespace rekeyfs
