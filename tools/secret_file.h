// SecretFile: reads a passphrase file or key file, and creates key files.
#pragma once

#include <string>
#include <utility>

#include "engine/base/secret_memory.h"
#include "tools/outcome.h"

namespace rekeyfs::tools {

enum class SecretPart { whole_file, first_line };

// ExitCode::wrong_secret if the file is missing, unreadable, empty or larger than 64 KiB. Warns on stderr if other
// users may read the file.
Outcome<SecretBytes> read_secret_file(const std::string& path, SecretPart part);

// Creates a durable key file of 32 random bytes, readable by its owner only, and missing directories on its path; only
// if the file does not exist. The destructor removes a created file unless keep() was called.
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
  std::string made_;  // path of the created file; empty: nothing to remove
};

}  // namespace rekeyfs::tools
