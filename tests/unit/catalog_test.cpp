// The catalog: transactions, checkpoints that succeed and fail, and files that somebody changed or put back.
#include "engine/catalog/catalog.h"

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
