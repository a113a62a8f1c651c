// SecretFile: reads a passphrase or key file, and makes a key file.
#pragma once

#include <string>
#include <utility>

#include "engine/base/secret_memory.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

enum class SecretPart { whole_file, first_line };

// ExitCode::wrong_secret for a file that is missing, unreadable, empty or larger than 64 KiB. Says on stderr if
// others may read the file.
Outcome<SecretBytes> read_secret_file(const std::string& path, SecretPart part);

// A key file of 32 random bytes that only its owner may read, durable; made only if there is no file of that name,
// with the directories that lead to it.
// A file that was made is removed with this object unless keep() was called.
class NewKeyFile {
 public:
  static Outcome<NewKeyFile> make_if_missing(const std::string& path);
  NewKeyFile(NewKeyFile&& other) noexcept : made_(std::exchange(other.made_, {})) {}
  NewKeyFile& operator=(NewKeyFile&&) = delete;
  ~NewKeyFile();
  bool made() const { return !made_.empty(); }
  void keep() { made_.clear(); }

 private:
  explicit NewKeyFile(std::string made) : made_(std::move(made)) {}
  std::string made_;  // its path; empty: there is nothing to remove
};

}  // namespace rekeyfs::tools
