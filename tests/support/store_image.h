// StoreImage: the files of a store held in memory, to put a store back quickly after each of thousands of attacks.
//
// Files are kept without their holes. What a file `reserve` holds means nothing and is left alone. For tests only.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/ids.h"

namespace rekeyfs::test {

class StoreImage {
 public:
  explicit StoreImage(const std::string& directory);
  // Makes `directory` what it was; whatever else is in it goes.
  void restore(const std::string& directory) const;

  const std::vector<std::string>& files() const { return names_; }  // paths below the store's directory, sorted
  bool contains(const std::string& file) const { return files_.contains(file); }
  std::uint64_t size(const std::string& file) const { return files_.at(file).size; }
  // The bytes there; zeros in holes and beyond the end.
  std::string bytes(const std::string& file, std::uint64_t offset, std::size_t size) const;
  std::string bytes(const std::string& file) const { return bytes(file, 0, size(file)); }
  // Pieces of `unit` bytes, by their number, that are not wholly zeros.
  std::vector<std::uint64_t> pieces(const std::string& file, std::size_t unit) const;

  // Whether a file has `text` in it somewhere.
  static bool holds(const std::string& path, std::string_view text);

 private:
  struct File {
    std::uint64_t size = 0;
    std::map<std::uint64_t, std::string> runs;  // by offset
  };
  static File read(const std::string& path);
  static void write(const std::string& path, const File& file);

  std::map<std::string, File> files_;
  std::vector<std::string> names_;
  std::set<std::string> directories_;
};

// The layer whose file this is; none for other files.
LayerId layer_of_path(const std::string& file);

// How tests damage a file.
void overwrite(const std::string& path, std::uint64_t offset, const std::string& bytes);
void flip_bit(const std::string& path, std::uint64_t offset, unsigned bit);

}  // namespace rekeyfs::test
