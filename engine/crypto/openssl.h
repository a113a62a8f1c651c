// Owning handles for OpenSSL objects, and its failures as Error. For engine/crypto only.
#pragma once

#include <memory>
#include <string_view>

#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "engine/base/bytes.h"
#include "engine/base/result.h"

namespace rekeyfs::crypto {

template <auto kFree>
struct OpensslDeleter {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using CipherPtr = std::unique_ptr<EVP_CIPHER, OpensslDeleter<EVP_CIPHER_free>>;
using CipherContextPtr = std::unique_ptr<EVP_CIPHER_CTX, OpensslDeleter<EVP_CIPHER_CTX_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, OpensslDeleter<EVP_MD_CTX_free>>;
using KdfPtr = std::unique_ptr<EVP_KDF, OpensslDeleter<EVP_KDF_free>>;
using KdfContextPtr = std::unique_ptr<EVP_KDF_CTX, OpensslDeleter<EVP_KDF_CTX_free>>;
using MacPtr = std::unique_ptr<EVP_MAC, OpensslDeleter<EVP_MAC_free>>;
using MacContextPtr = std::unique_ptr<EVP_MAC_CTX, OpensslDeleter<EVP_MAC_CTX_free>>;

// What OpenSSL has to say about its latest failure, as "`doing`: reason"; empties the thread's error queue.
Error openssl_error(Errc code, std::string_view doing);

// For operations on memory that fail only when memory is exhausted and whose callers have no error to return:
// a wrong digest must never leave, so the program ends, as it does when operator new fails.
void require(bool succeeded, std::string_view doing);

inline const unsigned char* as_uchar(ByteView bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline unsigned char* as_uchar(ByteSpan bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

}  // namespace rekeyfs::crypto
