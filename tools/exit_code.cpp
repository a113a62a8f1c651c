#include "tools/exit_code.h"

#include <array>

namespace rekeyfs::tools {
namespace {

constexpr std::array kRows{
    ExitCodeRow{ExitCode::ok, "done"},
    ExitCodeRow{ExitCode::failure, "any other failure"},
    ExitCodeRow{ExitCode::usage, "the command line or the mount options are wrong"},
    ExitCodeRow{ExitCode::wrong_secret, "the passphrase or key file does not unlock the store, or none was given"},
    ExitCodeRow{ExitCode::store_in_use, "another process has the store open"},
    ExitCodeRow{ExitCode::not_a_store, "the directory is not a store"},
    ExitCodeRow{ExitCode::unknown_version, "this version does not know the format of the store"},
    ExitCodeRow{ExitCode::damaged, "the store or an image in it is damaged, or its disk fails"},
    ExitCodeRow{ExitCode::busy, "something is in use (umount: nothing was unmounted)"},
    ExitCodeRow{ExitCode::replication_failed, "a replication is in error (--wait, --watch)"},
    ExitCodeRow{ExitCode::no_key, "there is no such key"},
    ExitCodeRow{ExitCode::key_revoked, "the key is disabled or pending deletion"},
    ExitCodeRow{ExitCode::bad_mountpoint, "the mount point cannot be used"},
    ExitCodeRow{ExitCode::not_mounted, "the path is neither in a rekeyfs mount nor a store"},
    ExitCodeRow{ExitCode::not_found, "the file or directory does not exist"},
    ExitCodeRow{ExitCode::exists, "the name is taken, or the directory is not empty"},
    ExitCodeRow{ExitCode::denied, "the caller is not allowed to do that"},
    ExitCodeRow{ExitCode::no_space, "no space is left, or a directory has reached its quota"},
    ExitCodeRow{ExitCode::refused, "a rule of the store forbids the operation"},
    ExitCodeRow{ExitCode::not_durable, "unmounted, but the latest changes may not be durable (umount)"},
    ExitCodeRow{ExitCode::stopped, "the store is read-only: what is waited for does not go on (--wait, --watch)"},
    ExitCodeRow{ExitCode::partial, "done in part: what was left out is listed"},
};

}  // namespace

std::span<const ExitCodeRow> exit_codes() {
  return kRows;
}

// No default label, so that the compiler reports a missing code.
ExitCode exit_code_of(Errc code) {
  switch (code) {
    case Errc::not_found:
    case Errc::stale:
    case Errc::no_attribute:
      return ExitCode::not_found;
    case Errc::exists:
    case Errc::not_empty:
      return ExitCode::exists;
    case Errc::no_space:
    case Errc::over_quota:
      return ExitCode::no_space;
    case Errc::io:
    case Errc::corrupt:
      return ExitCode::damaged;
    case Errc::not_permitted:
    case Errc::access_denied:
    case Errc::read_only:
      return ExitCode::denied;
    case Errc::busy:
      return ExitCode::busy;
    case Errc::no_key:
      return ExitCode::no_key;
    case Errc::key_revoked:
      return ExitCode::key_revoked;
    case Errc::wrong_secret:
      return ExitCode::wrong_secret;
    case Errc::wrong_medium:
    case Errc::cross_policy:
      return ExitCode::refused;
    case Errc::locked:
      return ExitCode::store_in_use;
    case Errc::wrong_version:
      return ExitCode::unknown_version;
    case Errc::not_directory:
    case Errc::is_directory:
    case Errc::invalid:
    case Errc::name_too_long:
    case Errc::too_large:
    case Errc::too_many_links:
    case Errc::not_supported:
    case Errc::small_buffer:
    case Errc::beyond_end:
    case Errc::bad_handle:
    case Errc::no_memory:
    case Errc::too_many_files:
    case Errc::unknown_command:
      return ExitCode::failure;
  }
  return ExitCode::failure;
}

}  // namespace rekeyfs::tools
