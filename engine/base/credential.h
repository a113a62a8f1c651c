// Credential: how a store is unlocked, the bytes of a passphrase or of a key file.
//
// Move-only, so that one place owns the bytes; wiped when it goes. A moved-from std::string keeps a short text
// in its own buffer, so moving wipes the place the bytes came from as well.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace rekeyfs {

class Credential {
 public:
  enum class Kind : std::uint8_t { passphrase = 1, key_file = 2 };  // numbers on disk

  Credential(Kind kind, std::string bytes) : kind_(kind) { take(bytes); }
  Credential(Credential&& other) noexcept : kind_(other.kind_) { take(other.bytes_); }
  Credential& operator=(Credential&&) = delete;
  Credential(const Credential&) = delete;
  Credential& operator=(const Credential&) = delete;
  ~Credential() { wipe(bytes_); }

  Kind kind() const { return kind_; }
  const std::string& expose_bytes() const { return bytes_; }

 private:
  void take(std::string& from) noexcept {
    bytes_.swap(from);
    wipe(from);
  }
  static void wipe(std::string& text) {
    text.resize(text.capacity());        // what lies behind the end may be secret too; allocates nothing
    volatile char* bytes = text.data();  // volatile: the compiler may not drop the wiping
    for (std::size_t i = 0; i < text.size(); ++i) bytes[i] = 0;
    text.clear();
  }

  Kind kind_;
  std::string bytes_;
};

}  // namespace rekeyfs
