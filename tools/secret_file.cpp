#include "tools/secret_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/descriptor.h"
#include "engine/base/read.h"

namespace rekeyfs::tools {
namespace {

constexpr std::size_t kLargest = 65536, kKeyBytes = 32;

tl::unexpected<Failure> unreadable(const std::string& path, const std::string& why) {
  return fail(ExitCode::wrong_secret, "the secret in " + path + " cannot be used: " + why);
}

void warn_if_open_to_others(int file, const std::string& path) {
  struct stat facts {};
  if (fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_mode & 077) != 0)
    std::fprintf(stderr, "rekeyfs: warning: other users may read or change %s; run: chmod 600 %s\n", path.c_str(),
                 path.c_str());
}

Outcome<SecretBytes> read_up_to(int file, const std::string& path, std::size_t most) {
  SecretBytes bytes(most);
  const Result<std::size_t> size = read_full(file, std::as_writable_bytes(std::span(bytes.data(), most)));
  if (!size) return unreadable(path, describe(size.error()));
  bytes.shorten(*size);
  return bytes;
}

void keep_first_line(SecretBytes& bytes) {
  bytes.shorten(std::min(bytes.expose().find('\n'), bytes.size()));
}

Outcome<void> write_random(int file, const std::string& path) {
  SecretBytes key(kKeyBytes);
  bool done = getrandom(key.data(), key.size(), 0) == static_cast<ssize_t>(key.size()) &&
              write(file, key.data(), key.size()) == static_cast<ssize_t>(key.size()) && fsync(file) == 0;
  if (!done) return tl::unexpected<Failure>(error_from_errno(errno, "write the key file " + path));
  return {};
}

// If a power cut removed the name of a new key file, the store could never be opened again.
Outcome<void> sync_parent(const std::string& path) {
  std::filesystem::path parent = std::filesystem::path(path).parent_path();
  Descriptor directory(open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) != 0)
    return tl::unexpected<Failure>(error_from_errno(errno, "sync the directory of " + path));
  return {};
}

Outcome<void> make_directories(const std::filesystem::path& directory) {
  struct stat facts {};
  if (directory.empty() || stat(directory.c_str(), &facts) == 0) return {};
  RK_TRY(make_directories(directory.parent_path()));
  if (mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    return tl::unexpected<Failure>(error_from_errno(errno, "create the directory " + directory.string()));
  return sync_parent(directory);
}

}  // namespace

Outcome<SecretBytes> read_secret_file(const std::string& path, SecretPart part) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return unreadable(path, strerror(errno));
  warn_if_open_to_others(file.get(), path);
  RK_TRY_ASSIGN(SecretBytes bytes, read_up_to(file.get(), path, kLargest + 1));
  if (bytes.size() > kLargest) return unreadable(path, "it is larger than 64 KiB");
  if (part == SecretPart::first_line) keep_first_line(bytes);
  if (bytes.empty()) return unreadable(path, "it is empty");
  return bytes;
}

Outcome<NewKeyFile> NewKeyFile::make_if_missing(const std::string& path) {
  RK_TRY(make_directories(std::filesystem::path(path).parent_path()));
  Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file && errno == EEXIST) return NewKeyFile({});
  if (!file) return tl::unexpected<Failure>(error_from_errno(errno, "create the key file " + path));
  NewKeyFile made(path);
  RK_TRY(write_random(file.get(), path));
  RK_TRY(sync_parent(path));
  return made;
}

NewKeyFile::~NewKeyFile() {
  if (!made_.empty()) unlink(made_.c_str());
}

}  // namespace rekeyfs::tools
