// Secret memory: where keys, passphrases and whatever is computed from them lie.
//
// Locked into RAM, so that it does not reach a swap device; left out of core dumps; between guard pages; wiped when it
// is given back. A child made by fork() keeps it, locked again: the daemon of a mount and the process that verifies a
// catalog go on with their parent's keys. It grows as it is needed and stays; what is larger than a page is
// mapped for itself and unmapped. Where the limit on locked memory (RLIMIT_MEMLOCK) is too low it is not locked.
//
// There is one of it in a process, as there is one malloc(): OpenSSL takes allocating functions, no object of ours.
// Thread-safe.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace rekeyfs {

namespace secret_memory {

// Fit for any type; unspecified bytes; null when there is no memory.
void* allocate(std::size_t size) noexcept;
void release(void* memory) noexcept;  // wiped; null is nothing
std::size_t size_of(const void* memory) noexcept;

}  // namespace secret_memory

// Bytes in secret memory, owned by one place.
class SecretBytes {
 public:
  explicit SecretBytes(std::size_t size) : data_(static_cast<char*>(secret_memory::allocate(size))), size_(size) {
    if (data_ == nullptr && size > 0) throw std::bad_alloc();
  }
  // A copy: the bytes of the caller are left to him.
  explicit SecretBytes(std::string_view bytes) : SecretBytes(bytes.size()) {
    if (!bytes.empty()) std::memcpy(data_, bytes.data(), bytes.size());
  }
  SecretBytes(SecretBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  SecretBytes& operator=(SecretBytes&&) = delete;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes() { secret_memory::release(data_); }

  char* data() { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::string_view expose() const { return {data_, size_}; }
  void shorten(std::size_t size) { size_ = size < size_ ? size : size_; }  // the rest is wiped with all of it

 private:
  char* data_;
  std::size_t size_;
};

}  // namespace rekeyfs
