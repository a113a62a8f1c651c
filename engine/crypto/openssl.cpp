#include "engine/crypto/openssl.h"

#include <cstdlib>
#include <string>

#include <openssl/err.h>

#include "engine/base/log.h"

namespace rekeyfs::crypto {

Error openssl_error(Errc code, std::string_view doing) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  Error error{code, std::string(doing) + ": OpenSSL answered: " + (reason != nullptr ? reason : "no reason given")};
  ERR_clear_error();
  return error;
}

void require(bool succeeded, std::string_view doing) {
  if (succeeded) return;
  log::error("{}", describe(openssl_error(Errc::no_memory, doing)));
  std::abort();
}

}  // namespace rekeyfs::crypto
