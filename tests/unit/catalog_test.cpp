// The catalog: transactions, successful and failed checkpoints, and files that were changed or restored.
#include "engine/catalog/catalog.h"

#include <chrono>
#include <random>

#include <gmock/gmock.h>

#include "engine/catalog/lmdb.h"
#include "engine/catalog/salvage.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::catalog {
namespace {

namespace stdfs = std::filesystem;
using ::testing::ElementsAre;
using Value = std::optional<std::string>;

class CatalogTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    storage_ = std::make_unique<test::FaultyStorage>(directory());
    for (const char* name : {"catalog", "journal"}) ASSERT_TRUE(storage_->make_directory(name));
    ASSERT_TRUE(Catalog::create(*storage_, path("catalog"), root_, id_, {{key(1), "made"}}));
    ASSERT_TRUE(open());
  }

  // As after a kill: the history is taken up, and a checkpoint made of it.
  Status open() {
    catalog_.reset();
    RK_TRY_ASSIGN(catalog_, Catalog::open(*storage_, path("catalog"), root_, id_));
    const Journal::History history = catalog_->take_history();
    for (const Journal::Record& record : history.records) {
      RK_TRY_ASSIGN(const std::vector<Op> ops, decode_ops(record.payload));
      for (const Op& op : ops) catalog_->recover_op(op);
    }
    RK_TRY(catalog_->start(history.next_segment));
    return checkpoint();
  }
  Status checkpoint() {
    RK_TRY_ASSIGN(const SegmentNumber first, catalog_->freeze());
    return catalog_->commit_frozen(first, {});
  }
  static std::string key(std::uint64_t number) { return make_key(Table::layer, number); }
  Status put(std::uint64_t number, const std::string& value) {
    WriteTxn txn(*catalog_);
    txn.put(key(number), value);
    RK_TRY(txn.commit());
    return {};
  }
  Status erase(std::uint64_t number) {
    WriteTxn txn(*catalog_);
    txn.erase(key(number));
    RK_TRY(txn.commit());
    return {};
  }
  Value get(std::uint64_t number) {
    auto value = catalog_->get(key(number));
    EXPECT_TRUE(value) << test::error_text(value);
    return value ? *value : Value{};
  }
  std::vector<std::string> values(std::uint64_t from = 0) {
    std::vector<std::string> found;
    EXPECT_TRUE(catalog_->scan(make_key(Table::layer), key(from), [&](std::string_view, std::string_view value) {
      found.emplace_back(value);
      return true;
    }));
    return found;
  }
  // Something is done to the file behind the catalog's back; then it must not open.
  void expect_refused_after(const std::function<void(LmdbWriteTxn&)>& change) {
    catalog_.reset();
    {
      auto env = LmdbEnvironment::open(path("catalog"), LmdbEnvironment::Access::read_write);
      ASSERT_TRUE(env);
      auto txn = LmdbWriteTxn::begin(*env);
      ASSERT_TRUE(txn);
      change(*txn);
      ASSERT_TRUE(txn->commit());
    }
    const Status opened = open();
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, Errc::corrupt) << test::error_text(opened.error());
  }
  std::string sealed(std::uint64_t number) {
    auto env = LmdbEnvironment::open(path("catalog"), LmdbEnvironment::Access::read_only);
    auto txn = LmdbReadTxn::begin(*env);
    return std::string(**txn->get(key(number)));
  }

  const crypto::Key root_ = std::move(*crypto::Key::random());
  const Uuid id_{std::byte{1}};
  std::unique_ptr<test::FaultyStorage> storage_;
  std::unique_ptr<Catalog> catalog_;
};

TEST_F(CatalogTest, ATransactionSeesItsOwnChangesAndLeavesNothingWithoutACommit) {
  {
    WriteTxn txn(*catalog_);
    txn.put(key(1), "changed");
    txn.put(key(2), "new");
    txn.erase(key(1));
    EXPECT_EQ(*txn.get(key(1)), Value{});
    EXPECT_EQ(*txn.get(key(2)), Value{"new"});
    EXPECT_EQ(get(2), Value{}) << "others see it before it is committed";
  }
  EXPECT_THAT(values(), ElementsAre("made"));
  ASSERT_TRUE(open());
  EXPECT_THAT(values(), ElementsAre("made"));
}

TEST_F(CatalogTest, ATransactionThatCannotBeRecordedDidNotHappen) {
  storage_->set_hook([](test::FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == test::FaultyStorage::Operation::write && path.starts_with("journal/")) return fail(Errc::no_space);
    return {};
  });
  const Status failed = put(2, "new");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::no_space);
  EXPECT_THAT(values(), ElementsAre("made"));
  storage_->set_hook(nullptr);
  ASSERT_TRUE(put(3, "later")) << "half a record lies where the next one goes";
  ASSERT_TRUE(open());
  EXPECT_THAT(values(), ElementsAre("made", "later"));
}

TEST_F(CatalogTest, ATransactionThatIsTooLargeForRecoveryDidNotHappen) {
  ASSERT_TRUE(put(2, "before"));
  const std::string megabyte(1u << 20, 'm');
  {
    WriteTxn txn(*catalog_);
    for (std::uint64_t number = 3; number < 19; ++number) txn.put(key(number), megabyte);
    EXPECT_GT(txn.bytes(), Journal::kMaxPayload);
    EXPECT_EQ(txn.commit().error().code, Errc::too_large);
  }
  EXPECT_THAT(values(), ElementsAre("made", "before"));
  ASSERT_TRUE(put(3, "after"));
  {
    WriteTxn txn(*catalog_);
    txn.put(key(4), "");
    const std::size_t left = Journal::kMaxPayload - 2 * txn.bytes();  // the second takes as much without its value
    txn.put(key(5), std::string(left, 'x'));
    ASSERT_EQ(txn.bytes(), Journal::kMaxPayload);
    ASSERT_TRUE(txn.commit());
  }
  ASSERT_TRUE(open());
  EXPECT_EQ(get(3), Value{"after"});
  ASSERT_TRUE(get(5));
  EXPECT_GT(get(5)->size(), 15u << 20);
  EXPECT_EQ(get(6), Value{});
}

TEST_F(CatalogTest, ATransactionFindsItsOwnChangesWithoutASearch) {
  constexpr std::uint64_t kMany = 100'000;
  const auto begun = std::chrono::steady_clock::now();
  WriteTxn txn(*catalog_);
  for (std::uint64_t number = 1; number <= kMany; ++number) txn.put(key(number), "x");
  for (std::uint64_t number = 1; number <= kMany; ++number) ASSERT_EQ(*txn.get(key(number)), Value{"x"});
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(10)) << "a search takes minutes";
}

TEST_F(CatalogTest, NodesAreCountedWhateverATransactionDoesWithThem) {
  const auto inode = [](Ino ino) { return make_key(Table::inode, ino.value()); };
  Ino kept, other;
  {
    WriteTxn txn(*catalog_);
    txn.put(inode(kept = txn.new_ino()), "kept");
    txn.put(inode(other = txn.new_ino()), "other");
    const Ino gone = txn.new_ino();
    txn.put(inode(gone), "made");
    txn.erase(inode(gone));
    ASSERT_TRUE(txn.commit());
  }
  EXPECT_EQ(catalog_->nodes(), 2u);
  {
    WriteTxn txn(*catalog_);
    txn.put(inode(kept), "changed");
    txn.put(inode(other), "changed");
    txn.erase(inode(other));
    ASSERT_TRUE(txn.commit());
  }
  EXPECT_EQ(catalog_->nodes(), 1u);
}

TEST_F(CatalogTest, AScanMayChangeWhatItIsAbout) {
  constexpr std::uint64_t kMany = 2000;
  for (std::uint64_t number = 2; number <= kMany; ++number) ASSERT_TRUE(put(number, std::to_string(number)));
  ASSERT_TRUE(checkpoint());
  // What stays is seen once, in order; what is put behind the scan is not seen, what is put before it is.
  std::vector<std::uint64_t> seen;
  ASSERT_TRUE(catalog_->scan(make_key(Table::layer), "", [&](std::string_view at, std::string_view) {
    seen.push_back(Reader(at.substr(1)).get_be64());
    if (seen.back() == 500) {
      EXPECT_TRUE(erase(499) && put(2, "behind") && erase(1500) && put(kMany + 1, "ahead"));
      EXPECT_TRUE(checkpoint());
    }
    return true;
  }));
  std::vector<std::uint64_t> expected;
  for (std::uint64_t number = 1; number <= kMany + 1; ++number)
    if (number != 1500) expected.push_back(number);
  EXPECT_EQ(seen, expected);
}

TEST_F(CatalogTest, AScanInPiecesFindsWhatAMapHolds) {
  std::mt19937 random(12);
  std::map<std::uint64_t, std::string> model{{1, "made"}};
  std::optional<SegmentNumber> frozen;
  for (int round = 0; round < 40; ++round) {
    for (int step = 0; step < 150; ++step) {
      const std::uint64_t number = 1 + random() % 1200;
      if (random() % 3 == 0) {
        ASSERT_TRUE(erase(number));
        model.erase(number);
      } else {
        const std::string value = std::to_string(random());
        ASSERT_TRUE(put(number, value));
        model[number] = value;
      }
    }
    if (frozen) {
      ASSERT_TRUE(catalog_->commit_frozen(*std::exchange(frozen, std::nullopt), {}));
    } else {
      const auto first = catalog_->freeze();
      ASSERT_TRUE(first);
      frozen = *first;
    }
    const std::uint64_t from = random() % 1300;
    std::vector<std::string> expected;
    for (auto at = model.lower_bound(from); at != model.end(); ++at) expected.push_back(at->second);
    ASSERT_EQ(values(from), expected) << "round " << round;
  }
}

TEST_F(CatalogTest, AScanSeesMemoryWhatIsBeingCommittedAndTheFileAsOne) {
  for (std::uint64_t number = 2; number <= 6; ++number) ASSERT_TRUE(put(number, "file " + std::to_string(number)));
  ASSERT_TRUE(checkpoint());
  ASSERT_TRUE(put(3, "frozen 3"));
  ASSERT_TRUE(erase(4));
  ASSERT_TRUE(put(7, "frozen 7"));
  const auto first = catalog_->freeze();
  ASSERT_TRUE(first);
  ASSERT_TRUE(put(4, "memory 4"));
  ASSERT_TRUE(erase(5));
  ASSERT_TRUE(erase(7));
  const std::vector<std::string> expected{"made", "file 2", "frozen 3", "memory 4", "file 6"};
  EXPECT_EQ(values(), expected);
  EXPECT_THAT(values(4), ElementsAre("memory 4", "file 6"));
  EXPECT_EQ(get(7), Value{});
  ASSERT_TRUE(catalog_->commit_frozen(*first, {}));
  EXPECT_EQ(values(), expected);
  ASSERT_TRUE(open());
  EXPECT_EQ(values(), expected);
}

TEST_F(CatalogTest, WhatWasMadeSinceAFreezeIsNotFrozen) {
  ASSERT_TRUE(put(2, "in the file"));
  ASSERT_TRUE(put(3, "erased before it"));
  ASSERT_TRUE(checkpoint());
  ASSERT_TRUE(put(4, "before it"));
  ASSERT_TRUE(erase(3));
  const auto first = catalog_->freeze();
  ASSERT_TRUE(first);
  ASSERT_TRUE(put(3, "since"));
  ASSERT_TRUE(put(5, "since"));
  ASSERT_TRUE(erase(4));
  const auto is_frozen = [&](std::uint64_t number) { return catalog_->has_frozen(key(number)).value(); };
  EXPECT_TRUE(is_frozen(2));
  EXPECT_FALSE(is_frozen(3));
  EXPECT_TRUE(is_frozen(4));
  EXPECT_FALSE(is_frozen(5));
  ASSERT_TRUE(catalog_->commit_frozen(*first, {}));
}

TEST_F(CatalogTest, WhatACheckpointSetAsideComesBackWhenItFails) {
  ASSERT_TRUE(put(2, "old"));
  ASSERT_TRUE(put(3, "kept"));
  ASSERT_TRUE(catalog_->freeze());
  ASSERT_TRUE(put(2, "newer"));
  catalog_->thaw();
  EXPECT_THAT(values(), ElementsAre("made", "newer", "kept"));
  ASSERT_TRUE(checkpoint());
  ASSERT_TRUE(open());
  EXPECT_THAT(values(), ElementsAre("made", "newer", "kept"));
}

TEST_F(CatalogTest, ARecordThatWasRemovedIsNoticed) {
  ASSERT_TRUE(put(2, "value"));
  ASSERT_TRUE(checkpoint());
  expect_refused_after([](LmdbWriteTxn& txn) { ASSERT_TRUE(txn.erase(key(2))); });
}

TEST_F(CatalogTest, ARecordThatWasPutBackIsNoticedThoughItOpens) {
  ASSERT_TRUE(put(2, "old"));
  ASSERT_TRUE(checkpoint());
  catalog_.reset();
  const std::string old = sealed(2);
  ASSERT_TRUE(open());
  ASSERT_TRUE(put(2, "new"));
  ASSERT_TRUE(checkpoint());
  expect_refused_after([&](LmdbWriteTxn& txn) { ASSERT_TRUE(txn.put(key(2), old)); });
}

TEST_F(CatalogTest, ARecordUnderAnotherKeyIsNoticed) {
  ASSERT_TRUE(put(2, "two"));
  ASSERT_TRUE(checkpoint());
  catalog_.reset();
  const std::string two = sealed(2);
  expect_refused_after([&](LmdbWriteTxn& txn) { ASSERT_TRUE(txn.put(key(1), two)); });
  // A repair has no digest to go by.
  const auto salvaged = salvage(*storage_, "catalog/data.mdb", root_, id_);
  ASSERT_TRUE(salvaged) << test::error_text(salvaged);
  EXPECT_TRUE(salvaged->records.contains(key(2)));
  const auto one = salvaged->records.find(key(1));
  EXPECT_TRUE(one == salvaged->records.end() || one->second != two) << "it must not be taken for another record";
}

TEST_F(CatalogTest, AnOlderFileWithANewerJournalIsRefused) {
  catalog_.reset();
  stdfs::copy_file(path("catalog/data.mdb"), path("old.mdb"));
  ASSERT_TRUE(open());
  ASSERT_TRUE(put(2, "value"));
  ASSERT_TRUE(checkpoint());
  catalog_.reset();
  stdfs::rename(path("old.mdb"), path("catalog/data.mdb"));
  auto opened = Catalog::open(*storage_, path("catalog"), root_, id_);
  ASSERT_TRUE(opened) << test::error_text(opened);
  const Journal::History history = (*opened)->take_history();
  EXPECT_FALSE(history.begins) << "the store must not be opened as if nothing were missing";
  EXPECT_THAT(history.broken, ::testing::HasSubstr("is missing"));
}

}  // namespace
}  // namespace rekeyfs::catalog
