// BlockTable alone: boundaries, copy on write, failed checkpoints, memory, damaged pages.
#include "engine/blocks/block_table.h"

#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <random>
#include <set>

#include "tests/support/environment.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::blocks {
namespace {

using State = TableRoot::State;

BlockEntry data(std::uint64_t number) {
  BlockEntry entry = BlockEntry::of(BlockState::data);
  entry.stored_length = 100;
  entry.slot = number;
  entry.epoch = EpochId{1};
  entry.counter = number;
  return entry;
}

class BlockTableTest : public test::TempDirectory {
 protected:
  void SetUp() override { open(TableRoot{}); }

  // As after a mount: from what the catalog would have kept.
  void open(const TableRoot& root, LayerId layer = LayerId{1}) {
    root_ = root;
    table_ = std::make_unique<BlockTable>(
        layer, mac_, [this](bool create) { return storage_.open("t", create ? io::OpenMode::create : io::OpenMode::write); }, root, budget_);
  }
  void set(BlockIndex index, const BlockEntry& entry) {
    const auto before = table_->set(index, entry);
    ASSERT_TRUE(before) << test::error_text(before);
  }
  std::set<Slot> set_range(BlockIndex first, BlockIndex end, BlockState state) {
    std::set<Slot> dropped;
    const Status status = table_->set_range(first, end, state, [&](const BlockEntry& entry) { dropped.insert(entry.slot); });
    EXPECT_TRUE(status) << test::error_text(status.error());
    return dropped;
  }
  // What is found: 'h', 'b', the slot of data, or the error.
  std::string found(BlockIndex index) {
    const auto run = table_->find(index);
    if (!run) return std::string(name_of(run.error().code));
    if (run->entry.state == BlockState::hole) return "h";
    return run->entry.state == BlockState::base ? "b" : std::to_string(run->entry.slot);
  }
  std::vector<std::uint64_t> checkpoint() {
    auto snapshot = table_->snapshot();
    EXPECT_TRUE(snapshot) << test::error_text(snapshot);
    if (!snapshot) return {};
    EXPECT_TRUE(table_->write(snapshot->writes));
    table_->committed();
    root_ = snapshot->root;
    std::vector<std::uint64_t> positions;
    for (const auto& page : snapshot->writes) positions.push_back(page.position);
    return positions;
  }
  void damage(std::uint64_t position) {
    std::fstream file(path("t"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(position * kPageSize + 5));
    file.put('\x5a');
  }
  std::string page(std::uint64_t position) {
    std::string bytes(kPageSize, '\0');
    std::ifstream file(path("t"), std::ios::binary);
    file.seekg(static_cast<std::streamoff>(position * kPageSize));
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  void put_page(std::uint64_t position, const std::string& bytes) {
    std::fstream file(path("t"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(position * kPageSize));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  const crypto::Key key_ = std::move(*crypto::Key::random());
  const crypto::Mac mac_ = std::move(*crypto::Mac::create(key_));
  test::FaultyStorage storage_{directory()};
  PageBudget budget_;
  TableRoot root_;
  std::unique_ptr<BlockTable> table_;
};

TEST_F(BlockTableTest, AnEmptyTableIsAllHolesAndHasNoFile) {
  EXPECT_EQ(found(0), "h");
  EXPECT_EQ(found(~std::uint64_t{0} - 1), "h");
  EXPECT_TRUE(set_range(0, ~std::uint64_t{0}, BlockState::hole).empty());
  EXPECT_TRUE(checkpoint().empty());
  EXPECT_EQ(root_.state, State::hole);
  EXPECT_FALSE(std::filesystem::exists(path("t")));
}

TEST_F(BlockTableTest, TheFewestLevels) {
  EXPECT_EQ(BlockTable::levels_for(0), 1);
  EXPECT_EQ(BlockTable::levels_for(128), 1);
  EXPECT_EQ(BlockTable::levels_for(129), 2);
  EXPECT_EQ(BlockTable::levels_for(128 * 128), 2);
  EXPECT_EQ(BlockTable::levels_for(128 * 128 + 1), 3);
}

TEST_F(BlockTableTest, OneBlockSurvivesAMount) {
  set(0, data(42));
  EXPECT_EQ(checkpoint(), std::vector<std::uint64_t>{1});
  open(root_);
  EXPECT_EQ(found(0), "42");
  EXPECT_EQ(found(1), "h");
  EXPECT_EQ(found(128), "h");
}

// The table grows by a level at each border, and what was there stays.
TEST_F(BlockTableTest, GrowsByLevels) {
  const BlockIndex borders[] = {127, 128, 128 * 128 - 1, 128 * 128, 128ull * 128 * 128};
  std::map<BlockIndex, std::string> expected;
  for (const BlockIndex index : borders) {
    set(index, data(index + 1));
    expected[index] = std::to_string(index + 1);
    for (const auto& [at, what] : expected) EXPECT_EQ(found(at), what);
    EXPECT_EQ(found(index + 1), "h");
    checkpoint();
    open(root_);
    for (const auto& [at, what] : expected) EXPECT_EQ(found(at), what);
  }
  EXPECT_EQ(root_.levels, 4);
}

// A clone that grows: behind the base's part all are holes.
TEST_F(BlockTableTest, AUniformRootStaysOverItsSpanWhenTheTableGrows) {
  open(TableRoot{State::base, 1, 0, {}});
  EXPECT_EQ(found(127), "b");
  EXPECT_EQ(found(128), "h");
  set(500, data(9));
  EXPECT_EQ(found(0), "b");
  EXPECT_EQ(found(127), "b");
  EXPECT_EQ(found(128), "h");
  EXPECT_EQ(found(500), "9");
  checkpoint();
  open(root_);
  EXPECT_EQ(found(127), "b");
  EXPECT_EQ(found(128), "h");
}

TEST_F(BlockTableTest, RunsTellHowFarTheyGo) {
  set(5, data(1));
  EXPECT_EQ(table_->find(0)->length, 5u);
  EXPECT_EQ(table_->find(5)->length, 1u);
  EXPECT_EQ(table_->find(6)->length, 122u);  // to the page's end
  set(128 * 5, data(2));
  EXPECT_EQ(table_->find(128)->length, 128u);  // a child without a page
}

TEST_F(BlockTableTest, ARangeAcrossPagesTellsOfAllThatGoes) {
  for (const BlockIndex index : {0, 100, 127, 128, 300, 511, 512}) set(index, data(index + 1));
  checkpoint();
  open(root_);
  EXPECT_THAT(set_range(100, 512, BlockState::hole), ::testing::ElementsAre(101, 128, 129, 301, 512));
  EXPECT_EQ(found(0), "1");
  for (const BlockIndex index : {100, 127, 128, 300, 511}) EXPECT_EQ(found(index), "h");
  EXPECT_EQ(found(512), "513");
  checkpoint();
  open(root_);
  EXPECT_EQ(found(127), "h");
  EXPECT_EQ(found(512), "513");
}

TEST_F(BlockTableTest, AWholeSubtreeBecomesUniformWithoutPages) {
  for (BlockIndex index = 0; index < 1000; ++index) set(index, data(index));
  const std::size_t before = budget_.pages.load();
  set_range(0, 896, BlockState::base);
  EXPECT_EQ(before - budget_.pages.load(), 7u);
  EXPECT_EQ(table_->find(128)->length, 128u);
  EXPECT_EQ(checkpoint().size(), 2u);  // the last leaf and the root
  set_range(0, 128 * 128, BlockState::hole);
  EXPECT_TRUE(table_->is_uniform(State::hole));
  EXPECT_EQ(budget_.pages.load(), 0u);
}

// A page of the last durable tree is not overwritten before the next tree is durable, whatever happens in between.
TEST_F(BlockTableTest, PlacesAreUsedAgainOnlyAfterTheCommit) {
  for (BlockIndex index = 0; index < 400; ++index) set(index, data(index));
  std::vector<std::uint64_t> durable = checkpoint();
  std::mt19937 random(3);
  std::uint64_t highest = 0;
  for (int round = 0; round < 200; ++round) {
    set(random() % 400, data(1000 + static_cast<std::uint64_t>(round)));
    auto snapshot = table_->snapshot();
    ASSERT_TRUE(snapshot);
    std::set<std::uint64_t> written;
    for (const auto& page : snapshot->writes) {
      EXPECT_THAT(durable, ::testing::Not(::testing::Contains(page.position))) << "round " << round;
      EXPECT_TRUE(written.insert(page.position).second);
      highest = std::max(highest, page.position);
    }
    ASSERT_TRUE(table_->write(snapshot->writes));
    if (random() % 3 == 0) {
      table_->failed();
      continue;
    }
    table_->committed();
    // The tree's pages: the root and the leaf are new, the other leaves stayed.
    BlockTable again(LayerId{1}, mac_, [this](bool) { return storage_.open("t", io::OpenMode::write); }, snapshot->root, budget_);
    for (BlockIndex index = 0; index < 400; ++index) {
      const auto run = again.find(index);
      ASSERT_TRUE(run) << "round " << round << ": " << test::error_text(run);
      ASSERT_EQ(run->entry, table_->find(index)->entry);
    }
    durable.assign(written.begin(), written.end());
  }
  EXPECT_LT(highest, 40u) << "places are not used again";
}

TEST_F(BlockTableTest, AFailedSnapshotIsTakenAgainByTheNext) {
  set(0, data(1));
  auto lost = table_->snapshot();
  ASSERT_TRUE(lost);
  EXPECT_EQ(table_->dirty_pages(), 0u);
  set(200, data(2));  // while it is being written
  table_->failed();
  EXPECT_GT(table_->dirty_pages(), 0u);
  checkpoint();
  open(root_);
  EXPECT_EQ(found(0), "1");
  EXPECT_EQ(found(200), "2");
}

// After a mount the free places are found from the tree: the file does not grow without need.
TEST_F(BlockTableTest, FreePlacesAreFoundAgainAfterAMount) {
  for (BlockIndex index = 0; index < 2000; ++index) set(index, data(index));
  checkpoint();
  std::uint64_t highest = 0;
  for (int mount = 0; mount < 30; ++mount) {
    open(root_);
    set(static_cast<BlockIndex>(mount) * 60, data(5));
    for (const std::uint64_t position : checkpoint()) highest = std::max(highest, position);
  }
  EXPECT_LE(highest, 17u + 3u);
  for (BlockIndex index = 0; index < 2000; ++index) EXPECT_EQ(found(index), index % 60 == 0 && index < 1800 ? "5" : std::to_string(index));
}

TEST_F(BlockTableTest, CleanLeavesAreLetGoBeyondTheBudget) {
  constexpr BlockIndex kBlocks = 128 * 300;
  for (BlockIndex index = 0; index < kBlocks; index += 128) set(index, data(index + 1));
  checkpoint();
  budget_.pages += PageBudget::kMost;  // other layers'
  EXPECT_EQ(found(0), "1");
  set(kBlocks - 1, data(7));
  EXPECT_LT(budget_.pages.load() - PageBudget::kMost, 10u);
  for (BlockIndex index = 0; index < kBlocks; index += 128) ASSERT_EQ(found(index), std::to_string(index + 1));
  EXPECT_EQ(found(kBlocks - 1), "7");  // the changed one stayed
  budget_.pages -= PageBudget::kMost;
}

TEST_F(BlockTableTest, DamagedMissingAndSwappedPagesAreCorrupt) {
  for (const BlockIndex index : {0, 128, 256}) set(index, data(index + 1));
  const std::vector<std::uint64_t> positions = checkpoint();  // three leaves, the root
  ASSERT_EQ(positions.size(), 4u);
  const std::string first = page(positions[0]), second = page(positions[1]);

  put_page(positions[0], second);
  put_page(positions[1], first);
  open(root_);
  EXPECT_EQ(found(0), "damaged data");
  EXPECT_EQ(found(128), "damaged data");
  EXPECT_EQ(found(256), "257");

  put_page(positions[0], first);
  open(root_, LayerId{2});
  EXPECT_EQ(found(0), "damaged data") << "another layer's page";
  open(root_);
  EXPECT_EQ(found(0), "1");

  damage(positions[2]);
  open(root_);
  EXPECT_EQ(found(256), "damaged data");
  std::filesystem::resize_file(path("t"), positions[3] * kPageSize + 100);
  open(root_);
  EXPECT_EQ(found(0), "damaged data");
}

TEST_F(BlockTableTest, EveryBitOfALeafAndOfAnInnerPageCounts) {
  set(0, data(1));
  set(128, data(2));
  for (const std::uint64_t position : checkpoint()) {
    const std::string whole = page(position);
    const BlockIndex below = position == root_.position || position == 1 ? 0 : 128;
    for (std::size_t bit = 0; bit < kPageSize * 8; ++bit) {
      std::string changed = whole;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
      put_page(position, changed);
      open(root_);
      ASSERT_EQ(found(below), "damaged data") << "bit " << bit << " of the page at " << position;
    }
    put_page(position, whole);
  }
  open(root_);
  EXPECT_EQ(found(0) + found(128), "12");
}

TEST_F(BlockTableTest, AnOlderVersionOfAPageIsCorrupt) {
  set(0, data(1));
  set(128, data(2));
  const std::string old = page(checkpoint()[0]);
  set(0, data(3));
  const std::vector<std::uint64_t> positions = checkpoint();
  put_page(positions[0], old);
  open(root_);
  EXPECT_EQ(found(0), "damaged data");
  EXPECT_EQ(found(128), "2");
}

// What lies below a damaged inner page is lost; the rest can be changed, and nothing is written over.
TEST_F(BlockTableTest, ChangesBesideADamagedInnerPageAreKept) {
  set(0, data(1));
  set(20000, data(2));
  set(20128, data(3));
  const std::vector<std::uint64_t> positions = checkpoint();  // leaf, inner, leaf, leaf, inner, root
  ASSERT_EQ(positions.size(), 6u);
  const std::string leaf = page(positions[2]);
  damage(positions[4]);
  for (std::uint64_t round = 0; round < 3; ++round) {
    open(root_);
    EXPECT_EQ(found(20000), "damaged data");
    set(round, data(10 + round));
    checkpoint();
  }
  open(root_);
  for (std::uint64_t round = 0; round < 3; ++round) EXPECT_EQ(found(round), std::to_string(10 + round));
  EXPECT_EQ(page(positions[2]), leaf) << "below the damaged page";
}

TEST_F(BlockTableTest, HolesCanReplaceWhatIsDamaged) {
  set(0, data(1));
  set(20000, data(2));
  set(40000, data(3));
  const std::vector<std::uint64_t> positions = checkpoint();
  damage(positions[3]);  // the inner page over 20000
  open(root_);
  EXPECT_EQ(found(20000), "damaged data");
  EXPECT_THAT(set_range(1, ~std::uint64_t{0}, BlockState::hole), ::testing::ElementsAre(3));
  EXPECT_EQ(found(20000), "h");
  EXPECT_EQ(found(40000), "h");
  EXPECT_EQ(found(0), "1");
}

TEST_F(BlockTableTest, ADamagedPageAtOneEndDoesNotKeepTheRestOfARange) {
  for (const BlockIndex index : {0, 128, 256}) set(index, data(index + 1));
  const std::vector<std::uint64_t> positions = checkpoint();
  damage(positions[0]);
  open(root_);
  const Status status = table_->set_range(5, 384, BlockState::hole, [](const BlockEntry&) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::corrupt);
  EXPECT_EQ(found(0), "damaged data");
  EXPECT_EQ(found(128), "h");
  EXPECT_EQ(found(256), "h");
}

// The places of pages that go are given out again, so none may be given up by a change that then fails.
TEST_F(BlockTableTest, HolesCanReplaceWhatTheDiskDoesNotRead) {
  constexpr unsigned kPages = 4;  // three leaves and the root, which is read first
  for (unsigned unread = 0; unread < kPages; ++unread) {
    const LayerId layer{unread + 1};
    open(TableRoot{}, layer);
    for (const BlockIndex index : {0, 128, 256}) set(index, data(index + 1));
    ASSERT_EQ(checkpoint().size(), kPages);
    open(root_, layer);
    unsigned reads = 0;
    storage_.set_hook([&](test::FaultyStorage::Operation asked, const std::string&) -> Status {
      const bool fails = asked == test::FaultyStorage::Operation::read && reads++ == unread;
      return fails ? Status(fail(Errc::io, "unreadable")) : Status{};
    });
    const std::set<Slot> dropped = set_range(0, ~std::uint64_t{0}, BlockState::hole);
    storage_.set_hook(nullptr);
    EXPECT_EQ(dropped.size(), unread == 0 ? 0u : 2u) << "page " << unread;
    EXPECT_EQ(found(0) + found(128) + found(256), "hhh") << "page " << unread;
    for (const BlockIndex index : {1, 129, 257}) set(index, data(7));
    const auto snapshot = table_->snapshot();
    ASSERT_TRUE(snapshot && table_->write(snapshot->writes));  // and that is all that happens before a kill
    open(root_, layer);
    EXPECT_EQ(found(0) + found(128) + found(256), "1129257") << "page " << unread;
  }
}

TEST_F(BlockTableTest, RandomChangesAreAsInAMap) {
  std::mt19937_64 random(11);
  std::map<BlockIndex, std::string> model;
  constexpr BlockIndex kBlocks = 40000;
  auto expected = [&](BlockIndex index) { return model.contains(index) ? model[index] : "h"; };
  for (int step = 0; step < 3000; ++step) {
    const BlockIndex index = random() % kBlocks;
    switch (random() % 10) {
      case 0: {
        const BlockIndex end = std::min<BlockIndex>(kBlocks, index + random() % 3000);
        const BlockState state = random() % 2 ? BlockState::hole : BlockState::base;
        set_range(index, end, state);
        for (BlockIndex i = index; i < end; ++i) model[i] = state == BlockState::hole ? "h" : "b";
        break;
      }
      case 1: checkpoint(); break;
      case 2:
        if (random() % 5 == 0) {
          checkpoint();
          open(root_);
        }
        break;
      default:
        set(index, data(static_cast<std::uint64_t>(step)));
        model[index] = std::to_string(step);
    }
    for (const BlockIndex at : {index, random() % kBlocks}) ASSERT_EQ(found(at), expected(at)) << "step " << step << ", block " << at;
  }
}

// The same on a disk that fails now and then, with so many pages in memory that leaves are read again and again. What
// may pass is tried again, as a layer does.
class TableFaultTest : public BlockTableTest {
 protected:
  static constexpr BlockIndex kBlocks = 40000;

  void SetUp() override {
    BlockTableTest::SetUp();
    budget_.pages += PageBudget::kMost;
    storage_.set_hook([this](test::FaultyStorage::Operation, const std::string&) -> Status {
      if (!fails_ || random_() % 20 > 0) return {};
      return fail(random_() % 2 ? Errc::io : Errc::no_memory, "now and then");
    });
  }

  void set_one(BlockIndex index, std::uint64_t number) {
    if (table_->set(index, data(number))) model_[index] = std::to_string(number);
  }
  void set_many(BlockIndex first, BlockIndex end, BlockState state) {
    std::set<std::string> dropped;
    Status done;
    for (bool again = false; !again || (!done && !BlockTable::is_gone(done.error())); again = true) {
      if (again) table_->count_pages();
      done = table_->set_range(first, end, state, [&](const BlockEntry& entry) { dropped.insert(std::to_string(entry.slot)); });
    }
    fails_ = false;
    for (BlockIndex index = first; index < end; ++index) {
      const std::string now = found(index), wanted = state == BlockState::hole ? "h" : "b";
      ASSERT_TRUE(now == wanted || (!done && now == expected(index))) << "block " << index << " is " << now;
      ASSERT_FALSE(dropped.contains(now)) << "block " << index;
      model_[index] = now;
    }
    fails_ = true;
  }
  void try_checkpoint() {
    auto snapshot = table_->snapshot();
    if (!snapshot || !table_->write(snapshot->writes)) return table_->failed();
    table_->committed();
    root_ = snapshot->root;
    durable_ = model_;
  }
  void lose_power() {
    open(root_);
    model_ = durable_;
  }
  std::string expected(BlockIndex index) const {
    const auto known = model_.find(index);
    return known == model_.end() ? "h" : known->second;
  }
  void expect_model() {
    fails_ = false;
    for (BlockIndex index = 0; index < kBlocks; ++index) ASSERT_EQ(found(index), expected(index)) << "block " << index;
    fails_ = true;
  }

  std::mt19937_64 random_{test::number_from_environment("REKEYFS_TEST_SEED", 1)};
  std::map<BlockIndex, std::string> model_, durable_;
  bool fails_ = true;
};

TEST_F(TableFaultTest, RandomChangesAreAsInAMap) {
  for (std::uint64_t step = 1; step <= 2000; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const BlockIndex index = random_() % kBlocks;
    switch (random_() % 20) {
      case 0:
        set_many(random_() % 2 ? index : 0, kBlocks - random_() % (kBlocks - index), random_() % 2 ? BlockState::hole : BlockState::base);
        break;
      case 1:
      case 2:
        try_checkpoint();
        break;
      case 3:
        lose_power();
        break;
      default:
        set_one(index, step);
    }
    if (step % 50 == 0) expect_model();
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace rekeyfs::blocks
