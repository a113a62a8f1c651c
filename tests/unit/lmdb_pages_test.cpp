// Reading LMDB's file without LMDB: damage that a walk over the records does not detect, but that the next commit or
// search would hit.
#include "engine/catalog/lmdb_pages.h"

#include <gmock/gmock.h>

#include "engine/catalog/catalog.h"
#include "engine/catalog/lmdb.h"
#include "engine/catalog/verify.h"
#include "engine/io/local_storage.h"
#include "tests/support/environment.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::catalog {
namespace {

constexpr std::size_t kPage = 4096, kHeader = 16;

class LmdbPagesTest : public test::TempDirectory {
 protected:
  // A catalog of many pages, of which some were given up.
  void SetUp() override {
    const auto storage = std::move(*io::LocalStorage::open(directory()));
    for (const char* name : {"catalog", "journal"}) ASSERT_TRUE(storage->make_directory(name));
    ASSERT_TRUE(Catalog::create(*storage, path("catalog"), root_, id_, {}));
    for (std::uint64_t round = 0; round < 3; ++round) {
      const auto catalog = std::move(*Catalog::open(*storage, path("catalog"), root_, id_));
      ASSERT_TRUE(catalog->start(catalog->take_history().next_segment));
      {
        WriteTxn txn(*catalog);
        for (std::uint64_t number = 1; number < 300; ++number)
          txn.put(make_key(Table::layer, number * 0x0101), std::string(40, 'v'));
        txn.put(make_key(Table::attribute, 1), std::string(20000, 'l'));
        ASSERT_TRUE(txn.commit());
      }
      const auto first = catalog->freeze();
      ASSERT_TRUE(first);
      ASSERT_TRUE(catalog->commit_frozen(*first, {}));
    }
    std::ifstream in(file(), std::ios::binary);
    whole_.assign(std::istreambuf_iterator<char>(in), {});
    ASSERT_TRUE(LmdbPages(whole_).verify());
  }

  std::string file() const { return path("catalog/data.mdb"); }
  bool opens(const std::string& bytes) {
    std::ofstream(file(), std::ios::binary | std::ios::trunc) << bytes;
    return verify_catalog(path("catalog"), root_, id_).has_value();
  }
  std::string with_number(std::size_t at, std::uint64_t number) const {
    std::string changed = whole_;
    changed.replace(at, sizeof number, Writer().put(number).take());
    return changed;
  }
  LmdbMeta meta() const { return *LmdbPages(whole_).newest_meta(); }
  // Where the newest of the two first pages has a field.
  std::size_t in_meta(std::size_t field) const {
    const auto transaction = [&](std::size_t page) {
      return Reader(std::string_view(whole_).substr(page * kPage + kHeader + 128)).get<std::uint64_t>();
    };
    return (transaction(0) > transaction(1) ? 0 : kPage) + kHeader + field;
  }

  const crypto::Key root_ = std::move(*crypto::Key::random());
  const Uuid id_{std::byte{1}};
  std::string whole_;
};

TEST_F(LmdbPagesTest, AKeyOfABranchLeadsWhereTheRecordsAre) {
  ASSERT_TRUE(opens(whole_));
  std::size_t misleading = 0;
  for (PageNumber page = 2; page < LmdbPages(whole_).count(); ++page) {
    if (!LmdbPages(whole_).is_branch(page)) continue;
    const auto nodes = LmdbPages(whole_).nodes(page);
    ASSERT_TRUE(nodes);
    for (const LmdbNode& node : *nodes) {
      if (node.key.empty()) continue;
      std::string changed = whole_;
      changed[static_cast<std::size_t>(node.key.data() - whole_.data()) + node.key.size() - 2] ^=
          0x04;  // beyond the leaf
      misleading += opens(changed) ? 0 : 1;
    }
  }
  EXPECT_GT(misleading, 5u);
}

TEST_F(LmdbPagesTest, AFreePageIsNotInUse) {
  const auto free = LmdbPages(whole_).free_pages(meta());
  ASSERT_TRUE(free);
  ASSERT_GT(free->size(), 3u);
  const auto nodes = LmdbPages(whole_).nodes(meta().free_root);
  ASSERT_TRUE(nodes && LmdbPages(whole_).is_leaf(meta().free_root));
  for (const LmdbNode& node : *nodes) {
    if (node.value.size() < 16) continue;
    const std::size_t at = static_cast<std::size_t>(node.value.data() - whole_.data()) + 8;
    EXPECT_FALSE(opens(with_number(at, meta().root)));
    EXPECT_FALSE(opens(with_number(at, meta().last + 1)));
    EXPECT_FALSE(opens(with_number(at, 0)));
  }
  EXPECT_TRUE(opens(whole_));
}

TEST_F(LmdbPagesTest, PagesOfLongValuesAreInUse) {
  std::set<PageNumber> used;
  PageNumber overflow = 0;
  LmdbPages(whole_).walk(meta().root, used, [&](const LmdbNode& node) {
    if (node.overflow_pages > 0) overflow = node.overflow;
  });
  ASSERT_GT(overflow, 0u);
  for (PageNumber page = overflow; page < overflow + 5; ++page) EXPECT_TRUE(used.contains(page));
}

TEST_F(LmdbPagesTest, APageIsLaidOutAsLmdbChangesIt) {
  constexpr std::size_t kUpper = 14, kMarks = 4, kSubData = 2;
  std::set<PageNumber> used;
  LmdbPages(whole_).walk(meta().root, used, [](const LmdbNode&) {});
  for (const PageNumber page : used) {
    if (!LmdbPages(whole_).is_leaf(page)) continue;
    std::string changed = whole_;
    changed[page * kPage + kUpper] ^= 0x10;
    EXPECT_FALSE(opens(changed)) << "nodes begin elsewhere";
    const auto nodes = LmdbPages(whole_).nodes(page);
    ASSERT_TRUE(nodes);
    for (const LmdbNode& node : *nodes) {
      changed = whole_;
      changed[static_cast<std::size_t>(node.key.data() - whole_.data()) - 8 + kMarks] ^= kSubData;
      EXPECT_FALSE(LmdbPages(changed).verify()) << "a value would be taken for a database";
    }
  }
  EXPECT_TRUE(opens(whole_));
}

TEST_F(LmdbPagesTest, ALongValueHasThePagesThatItSaysItHas) {
  constexpr std::size_t kPages = 12;
  std::set<PageNumber> used;
  LmdbPages(whole_).walk(meta().root, used, [&](const LmdbNode& node) {
    if (node.overflow_pages == 0) return;
    for (const char bit : {'\x01', '\x04', '\x40'}) {
      std::string changed = whole_;
      changed[node.overflow * kPage + kPages] ^= bit;
      EXPECT_FALSE(LmdbPages(changed).verify()) << "pages of others would be given up with it";
    }
  });
}

TEST_F(LmdbPagesTest, TheEndIsWhereItIs) {
  constexpr std::size_t kLast = 120, kFlags = 76;
  EXPECT_FALSE(opens(with_number(in_meta(kLast), meta().last / 2))) << "pages in use would be given out again";
  EXPECT_FALSE(opens(with_number(in_meta(kLast), meta().last + 1000)));
  EXPECT_FALSE(opens(with_number(in_meta(kLast), std::uint64_t{1} << 60)));
  std::string changed = whole_;
  changed[in_meta(kFlags)] ^= 0x02;  // keys compared from their end
  EXPECT_FALSE(opens(changed));
  EXPECT_FALSE(opens(""));
  EXPECT_FALSE(opens(whole_.substr(0, whole_.size() / 2)));
}

// Nothing that LMDB writes is taken for damage.
class WrittenPagesTest : public test::TempDirectory {
 protected:
  WrittenPagesTest() : TempDirectory(test::fast_directory()) {}

  void commit_some(const LmdbEnvironment& env) {
    auto txn = LmdbWriteTxn::begin(env);
    ASSERT_TRUE(txn);
    const bool shrinks = random_() % 4 == 0;
    for (std::size_t left = random_() % 60; left > 0; --left) {
      const std::uint64_t number = random_() % 1000;
      const std::string key = Writer().put_be64(number * number).take() + std::string(number % 190, 'k');
      const std::size_t size = random_() % 5 == 0 ? random_() % 20000 : random_() % 300;
      ASSERT_TRUE(random_() % 3 == 0 || shrinks ? txn->erase(key) : txn->put(key, std::string(size, 'v')));
    }
    if (random_() % 10 == 0) return;  // without it
    ASSERT_TRUE(txn->commit());
  }

  std::mt19937_64 random_{test::number_from_environment("REKEYFS_TEST_SEED", 1)};
};

TEST_F(WrittenPagesTest, AreSound) {
  for (int mount = 0; mount < 10; ++mount) {
    const auto env = LmdbEnvironment::open(directory(), LmdbEnvironment::Access::read_write);
    ASSERT_TRUE(env) << test::error_text(env);
    for (int commit = 0; commit < 40; ++commit) {
      commit_some(*env);
      std::ifstream in(path("data.mdb"), std::ios::binary);
      const std::string written{std::istreambuf_iterator<char>(in), {}};
      const Status sound = LmdbPages(written).verify();
      ASSERT_TRUE(sound) << test::error_text(sound.error()) << ": mount " << mount << ", commit " << commit;
    }
  }
}

}  // namespace
}  // namespace rekeyfs::catalog
