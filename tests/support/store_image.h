// StoreImage: the files of a store in memory, to restore the store quickly after each of thousands of attacks.
//
// Holes are not stored. The content of a file named `reserve` is irrelevant and not restored. For tests only.
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
  // Restores `directory` and removes all other files in it.
  void restore(const std::string& directory) const;

  const std::vector<std::string>& files() const { return names_; }  // relative to the store's directory, sorted
  bool contains(const std::string& file) const { return files_.contains(file); }
  std::uint64_t size(const std::string& file) const { return files_.at(file).size; }
  // The bytes of a range; zeros in holes and beyond the end.
  std::string bytes(const std::string& file, std::uint64_t offset, std::size_t size) const;
  std::string bytes(const std::string& file) const { return bytes(file, 0, size(file)); }
  // Indexes of units of `unit` bytes that are not all zeros.
  std::vector<std::uint64_t> pieces(const std::string& file, std::size_t unit) const;

  // Whether a file contains `text`.
  static bool holds(const std::string& path, std::string_view text);

 private:
  struct File {
    std::uint64_t size = 0;
    std::map<std::uint64_t, std::string> runs;  // key: offset
  };
  static File read(const std::string& path);
  static void write(const std::string& path, const File& file);

  std::map<std::string, File> files_;
  std::vector<std::string> names_;
  std::set<std::string> directories_;
};

// The layer that a file belongs to; nullopt for other files.
LayerId layer_of_path(const std::string& file);

// Ways to damage a file.
void overwrite(const std::string& path, std::uint64_t offset, const std::string& bytes);
void flip_bit(const std::string& path, std::uint64_t offset, unsigned bit);

}  // namespace rekeyfs::test
