// Disabling a master key: the kernel's cached pages of its images are dropped, even if later steps fail. And which
// images need a key.
#include <fcntl.h>

#include <atomic>
#include <map>
#include <set>
#include <thread>

#include <gmock/gmock.h>

#include "engine/blocks/layer_record.h"
#include "engine/make_engine.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using test::FaultyStorage;
using testing::Contains;
using testing::ElementsAre;
using testing::IsSupersetOf;
using testing::Not;

const Caller kUser{0, 0, true};

class Seen final : public Observer {
 public:
  void entry_removed(Ino, std::string_view) override {}
  void content_changed(Ino ino) override { changed.insert(ino); }
  void permissions_changed(Ino) override {}
  std::set<Ino> changed;
};

class KeyLifeTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    storage_ = std::make_unique<FaultyStorage>(path("store"));
    auto store = store::Store::open(path("store"), test::test_credential(), false, std::make_unique<test::BorrowedStorage>(*storage_));
    ASSERT_TRUE(store) << test::error_text(store);
    catalog_ = &(*store)->catalog();
    OpenOptions options;
    options.filler_workers = 0;  // replicas keep their sources
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
    engine_->set_observer(&seen_);
    for (const char* name : {"one", "two"}) make_folder(name);
  }
  void TearDown() override {
    storage_->set_hook(nullptr);
    if (engine_) {
      EXPECT_TRUE(engine_->close());
    }
  }

  void make_folder(const std::string& name) {
    ASSERT_TRUE(engine_->keys().create(name, kUser));
    const auto made = engine_->names().make_directory(kRootIno, name, 0755, kUser);
    ASSERT_TRUE(made);
    ASSERT_TRUE(engine_->names().setxattr(made->ino, "user.rekeyfs.key", name, XattrMode::either, kUser));
    folders_[name] = made->ino;
  }
  Ino make(const std::string& folder, const std::string& name) {
    auto made = engine_->files().create(folders_.at(folder), name, 0600, 0, kUser);
    EXPECT_TRUE(made) << test::error_text(made);
    EXPECT_TRUE(engine_->files().write(*made->file, 0, as_bytes(std::string(100, 'x'))));
    EXPECT_TRUE(engine_->files().flush(*made->file));
    return made->attributes.ino;
  }
  Ino copy(Ino from, const std::string& folder, const std::string& name) {
    const auto in = engine_->files().open(from, O_RDONLY, kUser);
    auto out = engine_->files().create(folders_.at(folder), name, 0600, 0, kUser);
    EXPECT_TRUE(in && out);
    const auto copied = engine_->files().copy_range(**in, 0, *out->file, 0, 100, kUser);
    EXPECT_TRUE(copied) << test::error_text(copied);
    EXPECT_TRUE(engine_->files().flush(*out->file));
    return out->attributes.ino;
  }
  Result<KeyFacts> disable(const std::string& alias) {
    KeyChange change;
    change.kind = KeyChange::Kind::disable;
    change.force = true;
    return engine_->keys().change(alias, change, kUser);
  }
  // From the n-th record of the journal on, none can be written.
  void refuse_records_from(int n) {
    storage_->set_hook([this, n](FaultyStorage::Operation operation, const std::string& file) -> Status {
      const bool is_record = operation == FaultyStorage::Operation::write && file.starts_with("journal/");
      if (is_record && ++records_ >= n) return fail(Errc::no_space, "the disk is full");
      return {};
    });
  }
  // What the catalog has of the image's layers does not make sense.
  void spoil_layers_of(Ino image) {
    std::vector<std::string> spoilt;
    ASSERT_TRUE(catalog_->scan(catalog::make_key(catalog::Table::layer), "", [&](std::string_view key, std::string_view value) {
      if (blocks::LayerRecord::decode(value)->owner == image) spoilt.emplace_back(key);
      return true;
    }));
    catalog::WriteTxn txn(*catalog_);
    for (const std::string& key : spoilt) txn.put(key, "x");
    ASSERT_TRUE(txn.commit());
  }
  std::vector<std::string> uses(const std::string& alias) {
    std::vector<std::string> found;
    const auto uses = engine_->keys().uses(alias);
    EXPECT_TRUE(uses) << test::error_text(uses);
    for (const KeyUse& use : *uses) found.push_back(use.path + ": " + use.reason);
    return found;
  }

  std::unique_ptr<FaultyStorage> storage_;
  catalog::Catalog* catalog_ = nullptr;
  Seen seen_;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, Ino> folders_;
  std::atomic<int> records_{0};
};

TEST_F(KeyLifeTest, PagesGoAlthoughTheAuditRecordCannotBeWritten) {
  const Ino image = make("one", "image");
  refuse_records_from(2);  // the first is the key's
  const auto disabled = disable("one");
  ASSERT_FALSE(disabled);
  EXPECT_EQ(disabled.error().code, Errc::no_space);
  EXPECT_EQ(engine_->keys().find("one")->state, "disabled");
  EXPECT_THAT(seen_.changed, Contains(image));
}

TEST_F(KeyLifeTest, PagesOfOpenImagesGoAlthoughTheCatalogIsDamaged) {
  const Ino open_one = make("one", "open"), spoilt = make("one", "spoilt"), closed = make("one", "closed"), other = make("two", "other");
  const Ino replica = copy(open_one, "two", "replica");
  const auto file = engine_->files().open(spoilt, O_RDONLY, kUser);
  ASSERT_TRUE(file);
  spoil_layers_of(spoilt);
  const auto disabled = disable("one");
  ASSERT_FALSE(disabled);
  EXPECT_EQ(disabled.error().code, Errc::corrupt);
  EXPECT_EQ(engine_->keys().find("one")->state, "disabled");
  EXPECT_THAT(seen_.changed, IsSupersetOf({open_one, spoilt, closed, replica}));
  EXPECT_THAT(seen_.changed, Not(Contains(other)));
}

TEST_F(KeyLifeTest, PagesOfImagesMadeMeanwhileGo) {
  std::set<Ino> made;
  std::atomic<int> count{0};
  std::thread maker([&] {
    for (;; ++count) {
      auto image = engine_->files().create(folders_.at("one"), std::to_string(count), 0600, 0, kUser);
      if (!image || !engine_->files().write(*image->file, 0, as_bytes("x"))) return;
      made.insert(image->attributes.ino);
    }
  });
  while (count < 100) std::this_thread::yield();
  EXPECT_TRUE(disable("one"));
  maker.join();
  EXPECT_THAT(seen_.changed, IsSupersetOf(made));
}

TEST_F(KeyLifeTest, UsesAreFoundThroughWhateverIsAboveAKeysLayers) {
  const Ino image = make("one", "image");
  copy(image, "one", "clone");
  copy(image, "two", "replica");
  make("two", "other");
  // These go on in layers over what the others read from.
  const auto file = engine_->files().open(image, O_RDWR, kUser);
  ASSERT_TRUE(engine_->files().write(**file, 0, as_bytes("y")));
  make_folder("three");
  ASSERT_TRUE(engine_->keys().rotate_directory(folders_.at("two"), "three", kUser));
  EXPECT_THAT(uses("one"), ElementsAre("/one/clone: encrypted with it", "/one/image: encrypted with it", "/two/replica: source of a replication"));
  EXPECT_THAT(uses("two"), ElementsAre("/two/other: source of a replication", "/two/replica: source of a replication"));
  EXPECT_THAT(uses("three"), ElementsAre("/two/other: encrypted with it", "/two/replica: encrypted with it"));
  ASSERT_TRUE(engine_->names().unlink(folders_.at("two"), "replica"));
  ASSERT_TRUE(engine_->names().unlink(folders_.at("one"), "clone"));
  EXPECT_THAT(uses("one"), ElementsAre("/one/image: encrypted with it"));
}

}  // namespace
}  // namespace rekeyfs
