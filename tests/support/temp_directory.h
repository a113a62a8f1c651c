// A fixture with a temporary directory, removed with its content when the test ends.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

namespace rekeyfs::test {

// For tests that create and open thousands of stores: in an in-memory file system if there is one.
inline std::filesystem::path fast_directory() {
  return std::filesystem::is_directory("/dev/shm") ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
}

class TempDirectory : public ::testing::Test {
 public:
  explicit TempDirectory(const std::filesystem::path& below = std::filesystem::temp_directory_path()) {
    std::string pattern = (below / "rekeyfs-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    directory_ = pattern;
  }
  ~TempDirectory() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

 protected:
  const std::string& directory() const { return directory_; }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

 private:
  std::string directory_;
};

}  // namespace rekeyfs::test
