// Secret memory: holds keys, passphrases and everything computed from them.
//
// It is locked into RAM, so that it is never swapped out; excluded from core dumps; surrounded by guard pages; and
// wiped when it is released. A child created by fork() inherits it, and locks it again: the daemon of a mount and the
// process that verifies a catalog continue to use their parent's keys. The pool grows on demand and never shrinks;
// blocks larger than a page are mapped and unmapped separately. If the limit on locked memory (RLIMIT_MEMLOCK) is too
// low, the memory is not locked.
//
// There is one pool per process, like malloc(), because OpenSSL accepts allocation functions but no object.
// Thread-safe.
#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace rekeyfs {

namespace secret_memory {

// Aligned for any type; contents unspecified; null if there is no memory.
void* allocate(std::size_t size) noexcept;
void release(void* memory) noexcept;  // wipes the memory; null is a no-op
std::size_t size_of(const void* memory) noexcept;

}  // namespace secret_memory

// Bytes in secret memory with one owner.
class SecretBytes {
 public:
  explicit SecretBytes(std::size_t size) : data_(static_cast<char*>(secret_memory::allocate(size))), size_(size) {
    if (data_ == nullptr && size > 0) throw std::bad_alloc();
  }
  // Copies the bytes; the caller keeps and wipes its own.
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
  void shorten(std::size_t size) { size_ = size < size_ ? size : size_; }  // the cut bytes are wiped with the others

 private:
  char* data_;
  std::size_t size_;
};

}  // namespace rekeyfs
