#include "engine/crypto/openssl.h"

#include <new>
#include <string>

#include <openssl/err.h>

namespace rekeyfs::crypto {

void require(bool succeeded) {
  if (succeeded) return;
  ERR_clear_error();
  throw std::bad_alloc();
}

Error algorithm_missing(std::string_view name) {
  // Later ones are consequences; 0: there was not even memory for an error.
  const unsigned long first = ERR_peek_error();
  require(first != 0 && ERR_GET_REASON(first) != ERR_R_MALLOC_FAILURE);
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  Error error{Errc::not_supported, "OpenSSL has no " + std::string(name) + ": " + (reason != nullptr ? reason : "no reason given")};
  ERR_clear_error();
  return error;
}

}  // namespace rekeyfs::crypto
