// Result<T>: the return type of every function that can fail, with a closed set of error codes.
//
// No exception crosses a module edge. errno values enter in error_from_errno() and leave in errno_of();
// nowhere else is one converted into the other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace rekeyfs {

// The reason of a failure. The comment is the errno that a user of the mount sees.
enum class Errc : std::uint8_t {
  not_found,         // ENOENT
  exists,            // EEXIST
  not_directory,     // ENOTDIR
  is_directory,      // EISDIR
  not_empty,         // ENOTEMPTY
  invalid,           // EINVAL
  name_too_long,     // ENAMETOOLONG
  no_space,          // ENOSPC
  too_large,         // EFBIG
  too_many_links,    // EMLINK
  read_only,         // EROFS: the store was mounted read-only, or became read-only after a failed sync
  io,                // EIO: an error of the device
  corrupt,           // EIO: damaged, missing or forged data
  not_permitted,     // EPERM
  access_denied,     // EACCES
  busy,              // EBUSY
  no_key,            // ENOKEY: the named key does not exist
  key_revoked,       // EKEYREVOKED: the key is disabled or pending deletion
  wrong_secret,      // EKEYREJECTED: passphrase or key file does not open this store
  wrong_medium,      // EMEDIUMTYPE: this kind of image cannot be replicated
  cross_policy,      // EXDEV
  no_attribute,      // ENODATA
  not_supported,     // EOPNOTSUPP
  small_buffer,      // ERANGE
  stale,             // ESTALE: the inode is gone
  beyond_end,        // ENXIO: SEEK_DATA or SEEK_HOLE past the end
  bad_handle,        // EBADF
  locked,            // EBUSY: another process has the store open
  wrong_version,     // EPROTONOSUPPORT: the store's format is unknown to this program
  no_memory,         // ENOMEM
  too_many_files,    // EMFILE
  unknown_command,   // ENOTTY: an ioctl that is not one of ours
  over_quota,        // EDQUOT: a directory has reached the limits that an operator gave it
};

struct Error {
  Errc code;
  std::string message;  // a sentence for the user: what failed and what to do next; may be empty
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(Errc code, std::string message = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

int errno_of(Errc code);
// The reverse, for a number that errno_of() gave; Errc::io for another one.
Errc code_of_errno(int error_number);
std::string_view name_of(Errc code);
// `doing` names the action and its object, for example "open /srv/store/lock".
Error error_from_errno(int error_number, std::string_view doing);
// The message, or the name of the code if there is none.
std::string describe(const Error& error);

}  // namespace rekeyfs

// Returns early with the error of `expr`; the second form binds its value first.
#define RK_CONCAT_(a, b) a##b
#define RK_CONCAT(a, b) RK_CONCAT_(a, b)
#define RK_TRY(expr)                                              \
  do {                                                            \
    if (auto rk_status = (expr); !rk_status)                      \
      return ::tl::unexpected(std::move(rk_status).error());      \
  } while (false)
#define RK_TRY_ASSIGN(decl, expr)                                 \
  auto RK_CONCAT(rk_result_, __LINE__) = (expr);                  \
  if (!RK_CONCAT(rk_result_, __LINE__))                           \
    return ::tl::unexpected(std::move(RK_CONCAT(rk_result_, __LINE__)).error()); \
  decl = std::move(*RK_CONCAT(rk_result_, __LINE__))
