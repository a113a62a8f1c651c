// ScratchDirectory: a directory for parts that need a real file system; removed when the process exits (`run` removes
// those of crashed processes).
#pragma once

#include <cstdlib>
#include <filesystem>

#include "tests/fuzz/fuzz.h"

namespace rekeyfs {

class ScratchDirectory {
 public:
  ScratchDirectory() : path_((std::filesystem::temp_directory_path() / "rekeyfs-fuzz-XXXXXX").string()) {
    require(::mkdtemp(path_.data()) != nullptr, "a directory can be made in " + path_);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace rekeyfs
