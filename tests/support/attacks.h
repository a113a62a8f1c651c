// Attacks: what somebody who can write to the files of a store, and has no key, can do to them. For tests only.
//
// A list is built from the files of a store as they are (StoreImage); each attack is later applied to a fresh copy.
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
  std::set<std::string> files;  // that are changed
  std::function<void(const std::string& store)> apply;
};
using Attacks = std::vector<Attack>;

// There are many bits: some are chosen, and attacks are made of those only.
struct FileBit {
  std::string_view file;  // the image's name of it
  std::uint64_t byte;
  unsigned bit;
};
enum class Bits { all, one_a_byte };
// Of the files whose names have `part` in them.
std::vector<FileBit> bits_of(const StoreImage& image, std::string_view part, Bits bits, std::mt19937_64& random);
Attack flipped(const FileBit& bit);

// Pieces (blocks, table pages, pages of LMDB) exchanged with each other, and one copied over another.
Attacks exchanged_pieces(const StoreImage& image);
// Pieces, and whole files, as they were in an older copy of the store.
Attacks old_pieces(const StoreImage& image, const StoreImage& older);
// Files that are cut, grown, emptied, removed; replaced by a directory, a link or a pipe; or exchanged with another.
Attacks mishandled_files(const StoreImage& image);
// The same for directories, and files that nobody made.
Attacks mishandled_directories(const StoreImage& image);
// Records of the catalog dropped, or as they were in an older copy: each opens. `scratch` is a directory.
Attacks lost_records(const StoreImage& image, const StoreImage& older, const std::string& scratch);
// Others exchanged, doubled, made up, or taken from another store.
Attacks forged_records(const StoreImage& image, const StoreImage& foreign, const std::string& scratch);
// The same for records of the journal, and segments of other mounts and stores.
Attacks forged_journals(const StoreImage& image, const StoreImage& older, const StoreImage& foreign);

// At most `most` of them, by chance; all if there are no more.
template <typename Thing>
std::vector<Thing> some_of(std::vector<Thing> all, std::size_t most, std::mt19937_64& random) {
  if (all.size() <= most) return all;
  std::shuffle(all.begin(), all.end(), random);
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(most), all.end());
  return all;
}
void append(Attacks& to, Attacks more);

}  // namespace rekeyfs::test
