// A damaged catalog as read by `rekeyfs check --repair`: LMDB's pages, which have no MAC.
#include "engine/catalog/salvage.h"

#include <fstream>
#include <iterator>
#include <optional>

#include "engine/catalog/lmdb_pages.h"
#include "engine/io/local_storage.h"
#include "engine/store/superblock.h"
#include "tests/fuzz/memory_storage.h"
#include "tests/fuzz/small_store.h"

namespace rekeyfs {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::string_view kPath = "catalog/data.mdb";

class SoundCatalog {
 public:
  SoundCatalog() {
    SmallStore store;
    store.close();
    const auto files = must(io::LocalStorage::open(store.path()));
    unlocked_.emplace(must(store::open_superblock(*files, SmallStore::credential())));
    std::ifstream in(store.path(std::string(kPath)), std::ios::binary);
    pages_.assign(std::istreambuf_iterator<char>(in), {});
    segments_ = must(files->list("journal"));
    MemoryStorage storage;
    put(storage, pages_);
    must(catalog::LmdbPages(pages_).verify());
    sound_ = must(salvage(storage));
    require(sound_.whole, "of an undamaged catalog all records are found");
  }

  const std::string& pages() const { return pages_; }
  void expect_no_other_records(const std::string& damaged) const {
    MemoryStorage storage;
    put(storage, damaged);
    static_cast<void>(catalog::LmdbPages(damaged).verify());
    const auto found = salvage(storage);
    if (!found) return;
    if (found->whole)
      require(found->records == sound_.records, "only the records of the last checkpoint are all there are");
    require(found->super.next_ino >= 2 && found->super.next_layer >= 1, "numbers go on");
  }

 private:
  void put(MemoryStorage& storage, const std::string& pages) const {
    storage.bytes(std::string(kPath)) = pages;
    for (const std::string& name : segments_) storage.bytes("journal/" + name);
  }
  Result<catalog::Salvaged> salvage(MemoryStorage& storage) const {
    return catalog::salvage(storage, std::string(kPath), unlocked_->root, unlocked_->superblock.store_id);
  }

  std::optional<store::Unlocked> unlocked_;
  std::string pages_;
  std::vector<std::string> segments_;
  catalog::Salvaged sound_;
};

// Pages lost, exchanged, overwritten by others; numbers in them changed; the file cut.
void damage(Reader& in, std::string& bytes) {
  for (auto steps = in.get<std::uint8_t>(); steps > 0 && in.ok(); --steps) {
    const auto what = in.get<std::uint8_t>();
    const std::size_t pages = bytes.size() / kPage;
    if (pages == 0) return;
    const std::size_t at = in.get<std::uint8_t>() % pages * kPage;
    const std::size_t other = in.get<std::uint8_t>() % pages * kPage;
    switch (what % 5) {
      case 0:
        bytes.replace(at, kPage, kPage, '\0');
        break;
      case 1:
        bytes.replace(at, kPage, std::string(bytes, other, kPage));
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3: {  // in a page's head or the list of its nodes
        const std::size_t place = at + in.get<std::uint8_t>() * 2 % 256;
        bytes.replace(place, 2, Writer().put(in.get<std::uint16_t>()).text());
        break;
      }
      default: {
        const std::size_t place = at + in.get<std::uint16_t>() % (kPage - 8);
        bytes.replace(place, 8, Writer().put(in.get<std::uint64_t>()).text());
      }
    }
  }
}

// First byte: 0 for a file as it lies there, anything else for damage to a sound one.
void try_input(ByteView input) {
  static const SoundCatalog sound;
  Reader in(input);
  std::string bytes;
  if (in.get<std::uint8_t>() == 0) {
    bytes = as_text(in.get_raw(in.left()));
  } else {
    bytes = sound.pages();
    damage(in, bytes);
  }
  sound.expect_no_other_records(bytes);
}

}  // namespace
}  // namespace rekeyfs

RK_FUZZ_TARGET(rekeyfs::try_input)
