// Background replications: resumed despite damaged records, and users taking turns.
#include <fcntl.h>

#include <thread>

#include <gtest/gtest.h>

#include "engine/make_engine.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using catalog::Table;
using catalog::make_key;

const Caller kUser{0, 0, true};

class FillerTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    open(0);
    for (const char* name : {"one", "two"}) {
      ASSERT_TRUE(engine_->keys().create(name, kUser));
      const auto made = engine_->names().make_directory(kRootIno, name, 0755, kUser);
      ASSERT_TRUE(made);
      ASSERT_TRUE(engine_->names().setxattr(made->ino, "user.rekeyfs.key", name, XattrMode::either, kUser));
      folders_[name] = made->ino;
    }
  }
  void TearDown() override {
    if (!engine_) return;
    EXPECT_TRUE(engine_->close());
  }
  void open(unsigned workers) {
    auto store = store::Store::open(path("store"), test::test_credential(), false);
    ASSERT_TRUE(store) << test::error_text(store);
    catalog_ = &(*store)->catalog();
    OpenOptions options;
    options.filler_workers = workers;
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }
  void reopen(unsigned workers) {
    ASSERT_TRUE(engine_->close());
    engine_.reset();
    open(workers);
  }
  Ino make(const std::string& folder, const std::string& name, std::size_t size = 100) {
    auto made = engine_->files().create(folders_.at(folder), name, 0600, 0, kUser);
    EXPECT_TRUE(made) << test::error_text(made);
    EXPECT_TRUE(engine_->files().write(*made->file, 0, as_bytes(std::string(size, 'x'))));
    EXPECT_TRUE(engine_->files().flush(*made->file));
    return made->attributes.ino;
  }
  Ino copy(Ino from, const std::string& folder, const std::string& name, const Caller& caller = kUser) {
    const auto in = engine_->files().open(from, O_RDONLY, caller);
    auto out = engine_->files().create(folders_.at(folder), name, 0600, 0, caller);
    EXPECT_TRUE(in && out);
    const std::uint64_t size = engine_->names().getattr(from)->size;
    EXPECT_TRUE(engine_->files().copy_range(**in, 0, *out->file, 0, size, caller));
    EXPECT_TRUE(engine_->files().flush(*out->file));
    return out->attributes.ino;
  }
  std::string status(Ino ino) {
    const auto status = engine_->names().getxattr(ino, "user.rekeyfs.status");
    return status ? *status : test::error_text(status);
  }
  bool becomes_normal(Ino ino) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (status(ino).substr(0, 6) != "normal") {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(10ms);
    }
    return true;
  }
  void put(const std::string& key, std::string_view value) {
    catalog::WriteTxn txn(*catalog_);
    txn.put(key, value);
    ASSERT_TRUE(txn.commit());
  }

  catalog::Catalog* catalog_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, Ino> folders_;
};

TEST_F(FillerTest, RecordsWithoutSenseKeepNoStoreFromBeingOpened) {
  const Ino source = make("one", "source");
  const Ino first = copy(source, "two", "first"), spoilt = copy(source, "two", "spoilt"), last = copy(source, "two", "last");
  std::string layer_of_spoilt;
  ASSERT_TRUE(catalog_->scan(make_key(Table::layer), "", [&](std::string_view key, std::string_view value) {
    if (blocks::LayerRecord::decode(value)->owner == spoilt) layer_of_spoilt = key;
    return true;
  }));
  put(layer_of_spoilt, "x");
  put(make_key(Table::replication, 1'000'000), "x");  // of no image
  put(make_key(Table::replication, first.value()), "x");
  put(make_key(Table::orphan, 1'000'001), "");
  put(make_key(Table::rotation, folders_.at("two").value()), "x");
  put(make_key(Table::rotation, 1'000'002), "x");
  reopen(1);
  EXPECT_TRUE(becomes_normal(first));
  EXPECT_TRUE(becomes_normal(last));
  EXPECT_EQ(*engine_->names().getxattr(folders_.at("two"), "user.rekeyfs.key"), "two");
}

TEST_F(FillerTest, ReplicationsOfOneUserDoNotHoldUpAnothers) {
  const Ino large = make("one", "large", 8u << 20), small = make("one", "small");
  std::vector<Ino> many;
  for (int i = 0; i < 40; ++i) many.push_back(copy(large, "two", std::to_string(i)));
  ASSERT_TRUE(engine_->keys().change("one", {KeyChange::Kind::grant, false, 0, 1000}, kUser));
  ASSERT_TRUE(engine_->keys().change("two", {KeyChange::Kind::grant, false, 0, 1000}, kUser));
  const Ino other = copy(small, "two", "other", Caller{1000, 1000});
  reopen(1);
  EXPECT_TRUE(becomes_normal(other));
  EXPECT_NE(status(many.back()).substr(0, 6), "normal") << "it is a turn of his, not the end of the queue";
  for (const Ino one : many) EXPECT_TRUE(becomes_normal(one));
}

TEST_F(FillerTest, AKeyThatIsEnabledEndsTheWaitForIt) {
  const Ino source = make("one", "source"), replica = copy(source, "two", "replica");
  KeyChange disable{KeyChange::Kind::disable, true, 0, 0};
  ASSERT_TRUE(engine_->keys().change("one", disable, kUser));
  reopen(1);
  std::this_thread::sleep_for(4s);  // it rests for 4 s now
  EXPECT_EQ(status(replica), "error");
  ASSERT_TRUE(engine_->keys().change("one", {KeyChange::Kind::enable, false, 0, 0}, kUser));
  const auto enabled = std::chrono::steady_clock::now();
  EXPECT_TRUE(becomes_normal(replica));
  EXPECT_LT(std::chrono::steady_clock::now() - enabled, 2s);
}

}  // namespace
}  // namespace rekeyfs
