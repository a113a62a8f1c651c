// Attacks: what an attacker who can write to the files of a store, but has no key, can do to them. For tests only.
//
// The list is built from the files of an existing store (StoreImage); each attack is later applied to a fresh copy.
#pragma once

#include <algorithm>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/store_image.h"

namespace rekeyfs::test {

struct Attack {
  std::string what;             // "layers/03/0000000000000003.data0: bit 5 of byte 100 flipped"
  std::set<std::string> files;  // the changed files
  std::function<void(const std::string& store)> apply;
};
using Attacks = std::vector<Attack>;

// There are too many bits to try all of them: attacks are built for a sample.
struct FileBit {
  std::string_view file;  // its name in the image
  std::uint64_t byte;
  unsigned bit;
};
enum class Bits { all, one_a_byte };
// Bit flips in files whose names contain `part`.
std::vector<FileBit> bits_of(const StoreImage& image, std::string_view part, Bits bits, std::mt19937_64& random);
Attack flipped(const FileBit& bit);

// Exchanges units (blocks, table pages, pages of LMDB), and copies one over another.
Attacks exchanged_pieces(const StoreImage& image);
// Replaces units, and whole files, by those of an older copy of the store.
Attacks old_pieces(const StoreImage& image, const StoreImage& older);
// Truncates, extends, empties or removes files; replaces them by a directory, a link or a pipe; exchanges two of them.
Attacks mishandled_files(const StoreImage& image);
// The same for directories, and additional files.
Attacks mishandled_directories(const StoreImage& image);
// Removes records of the catalog, or replaces them by those of an older copy, all of which decrypt. `scratch` is a
// directory.
Attacks lost_records(const StoreImage& image, const StoreImage& older, const std::string& scratch);
// Exchanges, duplicates and forges records, and takes records from another store.
Attacks forged_records(const StoreImage& image, const StoreImage& foreign, const std::string& scratch);
// The same for records of the journal, and segments of other mounts and stores.
Attacks forged_journals(const StoreImage& image, const StoreImage& older, const StoreImage& foreign);

// A random sample of `most` attacks; all if there are not more.
template <typename Thing>
std::vector<Thing> some_of(std::vector<Thing> all, std::size_t most, std::mt19937_64& random) {
  if (all.size() <= most) return all;
  std::shuffle(all.begin(), all.end(), random);
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(most), all.end());
  return all;
}
void append(Attacks& to, Attacks more);

}  // namespace rekeyfs::test
