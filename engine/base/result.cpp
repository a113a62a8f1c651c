#include "engine/base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace rekeyfs {
namespace {

struct Row {
  Errc code;
  int number;
  std::string_view name;
};

// code_of_errno() returns the first row with a given errno.
constexpr std::array kRows{
    Row{Errc::not_found, ENOENT, "not found"},
    Row{Errc::exists, EEXIST, "exists already"},
    Row{Errc::not_directory, ENOTDIR, "not a directory"},
    Row{Errc::is_directory, EISDIR, "is a directory"},
    Row{Errc::not_empty, ENOTEMPTY, "directory not empty"},
    Row{Errc::invalid, EINVAL, "invalid argument"},
    Row{Errc::name_too_long, ENAMETOOLONG, "name too long"},
    Row{Errc::no_space, ENOSPC, "no space left"},
    Row{Errc::too_large, EFBIG, "file too large"},
    Row{Errc::too_many_links, EMLINK, "too many links"},
    Row{Errc::read_only, EROFS, "read-only"},
    Row{Errc::io, EIO, "input/output error"},
    Row{Errc::corrupt, EIO, "damaged data"},
    Row{Errc::not_permitted, EPERM, "operation not permitted"},
    Row{Errc::access_denied, EACCES, "permission denied"},
    Row{Errc::busy, EBUSY, "busy"},
    Row{Errc::no_key, ENOKEY, "key not available"},
    Row{Errc::key_revoked, EKEYREVOKED, "key revoked"},
    Row{Errc::wrong_secret, EKEYREJECTED, "wrong passphrase or key file"},
    Row{Errc::wrong_medium, EMEDIUMTYPE, "wrong medium type"},
    Row{Errc::cross_policy, EXDEV, "different policies"},
    Row{Errc::no_attribute, ENODATA, "no such attribute"},
    Row{Errc::not_supported, EOPNOTSUPP, "not supported"},
    Row{Errc::small_buffer, ERANGE, "buffer too small"},
    Row{Errc::stale, ESTALE, "stale handle"},
    Row{Errc::beyond_end, ENXIO, "beyond the end"},
    Row{Errc::bad_handle, EBADF, "bad handle"},
    Row{Errc::locked, EBUSY, "in use by another process"},
    Row{Errc::wrong_version, EPROTONOSUPPORT, "unknown format version"},
    Row{Errc::no_memory, ENOMEM, "out of memory"},
    Row{Errc::too_many_files, EMFILE, "too many open files"},
    Row{Errc::unknown_command, ENOTTY, "unknown command"},
    Row{Errc::over_quota, EDQUOT, "quota exceeded"},
};

}  // namespace

int errno_of(Errc code) {
  for (const Row& row : kRows)
    if (row.code == code) return row.number;
  return EIO;
}

std::string_view name_of(Errc code) {
  for (const Row& row : kRows)
    if (row.code == code) return row.name;
  return "unknown error";
}

Errc code_of_errno(int error_number) {
  for (const Row& row : kRows)
    if (row.number == error_number) return row.code;
  return Errc::io;
}

Error error_from_errno(int error_number, std::string_view doing) {
  Errc code = code_of_errno(error_number);
  if (error_number == EDQUOT) code = Errc::no_space;  // of the disk: not a quota of the store
  if (error_number == ENFILE) code = Errc::too_many_files;
  return Error{code, std::string(doing) + ": " + std::strerror(error_number)};
}

std::string describe(const Error& error) {
  return error.message.empty() ? std::string(name_of(error.code)) : error.message;
}

}  // namespace rekeyfs
