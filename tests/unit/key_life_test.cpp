// Disabling a master key: it takes effect at once, and the kernel's cached pages of its images are dropped, even if
// later steps fail. Deleting one: the delay passes by the wall clock and as the store saw time. And which images need a
// key.
#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include <gmock/gmock.h>

#include "engine/base/delay.h"
#include "engine/blocks/layer_record.h"
#include "engine/make_engine.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using test::FaultyStorage;
using namespace std::chrono_literals;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const Caller kUser{0, 0, true};
const Caller kAlice{64001, 64001};

class Seen final : public Observer {
 public:
  void entry_removed(Ino, std::string_view) override {}
  void content_changed(Ino ino) override {
    if (before_) before_();
    Lock lock(mutex_);
    changed_.insert(ino);
  }
  void permissions_changed(Ino) override {}
  void set_before(std::function<void()> before) { before_ = std::move(before); }  // before any other use
  std::set<Ino> changed() {
    Lock lock(mutex_);
    return changed_;
  }

 private:
  std::function<void()> before_;
  Mutex mutex_;
  std::set<Ino> changed_ GUARDED_BY(mutex_);
};

// What is done in the background is done soon.
template <typename Condition>
bool soon(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(5ms);
  }
  return true;
}

// A clock that a test sets. Both parts move on together, as time does, unless only the wall clock is set.
class TestClock {
 public:
  store::StoreClock::Source source() {
    return [this] {
      Lock lock(mutex_);
      return reading_;
    };
  }
  void pass(Timestamp time) {
    Lock lock(mutex_);
    reading_.boot += time;
    reading_.wall += time;
  }
  void set_by(Timestamp time) {
    Lock lock(mutex_);
    reading_.wall += time;
  }
  Timestamp wall() {
    Lock lock(mutex_);
    return reading_.wall;
  }

 private:
  Mutex mutex_;
  store::StoreClock::Reading reading_ GUARDED_BY(mutex_){now(), kDay};
};

class KeyLifeTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    storage_ = std::make_unique<FaultyStorage>(path("store"));
    open();
    for (const char* name : {"one", "two"}) make_folder(name);
  }
  void open() {
    auto store = store::Store::open(path("store"), test::test_credential(), false, std::make_unique<test::BorrowedStorage>(*storage_),
                                    clock_.source());
    ASSERT_TRUE(store) << test::error_text(store);
    catalog_ = &(*store)->catalog();
    OpenOptions options;
    options.filler_workers = 0;  // replicas keep their sources
    options.user_keys = 1;
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
    engine_->set_observer(&seen_);
  }
  void close() {
    ASSERT_TRUE(engine_->close());
    engine_.reset();
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
  Result<KeyFacts> schedule_deletion(const std::string& alias, Timestamp delay, bool force = true, const Caller& caller = kUser) {
    KeyChange change;
    change.kind = KeyChange::Kind::schedule_deletion;
    change.force = force;
    change.delay = delay;
    return engine_->keys().change(alias, change, caller);
  }
  bool exists(const std::string& alias) { return engine_->keys().find(alias).has_value(); }
  bool is_deleted_soon(const std::string& alias) {
    return soon([&] { return !exists(alias); });
  }
  // The background thread looks each second.
  bool stays(const std::string& alias) {
    std::this_thread::sleep_for(2500ms);
    return exists(alias);
  }
  std::vector<std::string> told_of_the_clock() {
    EventQuery query;
    query.kind = EventKind::clock_jumped;
    const auto events = engine_->reports().events(query);
    EXPECT_TRUE(events);
    std::vector<std::string> texts;
    for (const Event& event : *events) texts.push_back(event.text);
    return texts;
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

  TestClock clock_;
  std::unique_ptr<FaultyStorage> storage_;
  catalog::Catalog* catalog_ = nullptr;
  Seen seen_;
  std::unique_ptr<Engine> engine_;
  std::map<std::string, Ino> folders_;
  std::atomic<int> records_{0};
};

TEST_F(KeyLifeTest, AKeyIsDisabledAlthoughTheAuditRecordCannotBeWritten) {
  const Ino image = make("one", "image");
  refuse_records_from(2);  // the first is the key's
  const auto disabled = disable("one");
  ASSERT_TRUE(disabled) << test::error_text(disabled);
  EXPECT_EQ(disabled->state, "disabled");
  EXPECT_THAT(disabled->warning, AllOf(HasSubstr("audit log"), HasSubstr("the disk is full")));
  EXPECT_EQ(engine_->keys().find("one")->state, "disabled");
  EXPECT_TRUE(soon([&] { return seen_.changed().contains(image); }));
}

TEST_F(KeyLifeTest, AKeyIsDisabledAlthoughThatCannotBeRecorded) {
  const Ino image = make("one", "image");
  const auto file = engine_->files().open(image, O_RDONLY, kUser);
  ASSERT_TRUE(file);
  for (const bool deleted : {false, true}) {
    records_ = 0;
    refuse_records_from(1);
    const auto disabled = deleted ? schedule_deletion("one", 8 * kDay) : disable("one");
    ASSERT_FALSE(disabled);
    EXPECT_EQ(disabled.error().code, Errc::no_space);
    EXPECT_THAT(disabled.error().message, AllOf(HasSubstr("disabled now"), HasSubstr("repeat the command")));
    EXPECT_EQ(engine_->keys().find("one")->state, "disabled");
    EXPECT_THAT(seen_.changed(), Contains(image));
    std::byte bytes[10];
    const auto read = engine_->files().read(**file, 0, bytes);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Errc::key_revoked);
    storage_->set_hook(nullptr);
    KeyChange enable;
    enable.kind = KeyChange::Kind::enable;
    ASSERT_TRUE(engine_->keys().change("one", enable, kUser));
    EXPECT_TRUE(engine_->files().read(**file, 0, bytes));
  }
}

TEST_F(KeyLifeTest, AKeyIsDisabledAlthoughTheStoreTakesNoChanges) {
  make("one", "image");
  storage_->set_hook([](FaultyStorage::Operation operation, const std::string&) -> Status {
    return operation == FaultyStorage::Operation::sync ? fail(Errc::io, "the disk fails") : Status{};
  });
  EXPECT_FALSE(engine_->sync_all());
  for (const bool deleted : {false, true}) {
    const auto disabled = deleted ? schedule_deletion("two", 8 * kDay) : disable("one");
    ASSERT_FALSE(disabled);
    EXPECT_EQ(disabled.error().code, Errc::read_only);
    EXPECT_EQ(engine_->keys().find(deleted ? "two" : "one")->state, "disabled");
  }
  EXPECT_FALSE(engine_->close());
  engine_.reset();
}

TEST_F(KeyLifeTest, PagesOfOpenImagesGoAlthoughTheCatalogIsDamaged) {
  const Ino open_one = make("one", "open"), spoilt = make("one", "spoilt"), closed = make("one", "closed"), other = make("two", "other");
  const Ino replica = copy(open_one, "two", "replica");
  const auto file = engine_->files().open(spoilt, O_RDONLY, kUser);
  ASSERT_TRUE(file);
  spoil_layers_of(spoilt);
  const auto disabled = disable("one");
  ASSERT_TRUE(disabled) << test::error_text(disabled);
  EXPECT_EQ(disabled->state, "disabled");
  EXPECT_EQ(engine_->keys().find("one")->state, "disabled");
  EXPECT_THAT(seen_.changed(), Contains(spoilt));
  EXPECT_TRUE(soon([&] {
    const std::set<Ino> changed = seen_.changed();
    return changed.contains(open_one) && changed.contains(closed) && changed.contains(replica);
  }));
  EXPECT_THAT(seen_.changed(), Not(Contains(other)));
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
  EXPECT_TRUE(soon([&] {
    const std::set<Ino> changed = seen_.changed();
    return std::includes(changed.begin(), changed.end(), made.begin(), made.end());
  }));
}

// The kernel may take its time over pages: here, as long as the order is under way.
TEST_F(KeyLifeTest, AnOrderDoesNotWaitForThePagesOfAllImages) {
  const Ino image = make("one", "image");
  make("one", "second");
  std::atomic<bool> answered = false, waited = false;
  const std::thread::id caller = std::this_thread::get_id();
  seen_.set_before([&] {
    if (std::this_thread::get_id() != caller && !soon([&] { return answered.load(); })) waited = true;
  });
  const auto disabled = disable("one");
  answered = true;
  ASSERT_TRUE(disabled) << test::error_text(disabled);
  EXPECT_EQ(disabled->warning, "");
  EXPECT_TRUE(soon([&] { return seen_.changed().contains(image); }));
  close();  // nothing is observed any more
  EXPECT_FALSE(waited);
}

TEST_F(KeyLifeTest, AKeyThatIsNeededIsRefusedWithoutPaths) {
  make("one", "secret-name");
  KeyChange change;
  change.kind = KeyChange::Kind::disable;
  const auto refused = engine_->keys().change("one", change, kUser);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::busy);
  EXPECT_EQ(refused.error().message, "key \"one\" is still needed by 1 image, which would become unreadable: `rekeyfs key show one PATH` lists "
                                     "those that you can see; --force overrides this check");
}

// --- deletions -------------------------------------------------------------------------------------------------

TEST_F(KeyLifeTest, ADeletionHasALeastDelay) {
  ASSERT_TRUE(engine_->keys().create("alices", kAlice));
  for (const bool force : {false, true}) {
    const auto refused = schedule_deletion("alices", 0, force, kAlice);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::not_permitted);
    EXPECT_EQ(refused.error().message, "keys of this store are deleted after 7d at the earliest, and not after 0s: choose --after 7d or more; "
                                       "only an operator can override this, by --force");
  }
  EXPECT_EQ(schedule_deletion("alices", 0, false).error().code, Errc::not_permitted) << "an operator has to mean it";
  EXPECT_EQ(engine_->keys().find("alices")->state, "enabled");
  EXPECT_TRUE(schedule_deletion("alices", 7 * kDay, false, kAlice));
  EXPECT_FALSE(schedule_deletion("alices", kDay, true, kAlice)) << "nor is it made shorter later";
  ASSERT_TRUE(schedule_deletion("alices", 0));
  EXPECT_TRUE(is_deleted_soon("alices"));
}

TEST_F(KeyLifeTest, TheLeastDelayIsARuleOfTheStore) {
  const std::string name = "user.rekeyfs.min_deletion_delay";
  const auto set = [&](Ino ino, std::string_view value, const Caller& caller) {
    return engine_->names().setxattr(ino, name, value, XattrMode::either, caller);
  };
  AttributeChange gift;
  gift.uid = kAlice.uid;
  ASSERT_TRUE(engine_->names().setattr(kRootIno, gift, kUser, nullptr));
  EXPECT_EQ(set(kRootIno, "0s", kAlice).error().code, Errc::not_permitted) << "although it is her directory";
  EXPECT_EQ(set(folders_.at("one"), "2d", kUser).error().code, Errc::not_permitted);
  for (const char* bad : {"2", "2y", "-1d", "d", "400d", "2d "}) EXPECT_EQ(set(kRootIno, bad, kUser).error().code, Errc::invalid) << bad;
  EXPECT_EQ(engine_->names().getxattr(kRootIno, name).error().code, Errc::no_attribute);
  ASSERT_TRUE(set(kRootIno, "48h", kUser));
  EXPECT_EQ(engine_->names().getxattr(kRootIno, name).value(), "2d");
  ASSERT_TRUE(engine_->keys().create("alices", kAlice));
  close();
  EXPECT_TRUE(has(store::read_superblock(*storage_)->features, store::Feature::rules));
  open();
  EXPECT_FALSE(schedule_deletion("alices", 2 * kDay - 1, false, kAlice));
  EXPECT_TRUE(schedule_deletion("alices", 2 * kDay, false, kAlice));
  EXPECT_EQ(engine_->names().removexattr(kRootIno, name, kAlice).error().code, Errc::not_permitted);
  ASSERT_TRUE(engine_->names().removexattr(kRootIno, name, kUser));
  EXPECT_FALSE(schedule_deletion("alices", 2 * kDay, false, kAlice));
}

TEST_F(KeyLifeTest, AClockThatIsSetForwardDeletesNothing) {
  ASSERT_TRUE(schedule_deletion("one", 7 * kDay));
  clock_.set_by(8 * kDay);
  ASSERT_TRUE(soon([&] { return !told_of_the_clock().empty(); }));
  EXPECT_THAT(told_of_the_clock(), ElementsAre(HasSubstr("set forward by 8d")));
  EXPECT_TRUE(stays("one"));
  EXPECT_GE(engine_->keys().find("one")->deletion, clock_.wall() + 7 * kDay) << "it is shown as it will take place";
  clock_.pass(7 * kDay - 1);
  EXPECT_TRUE(stays("one"));
  clock_.pass(1);
  EXPECT_TRUE(is_deleted_soon("one"));
}

TEST_F(KeyLifeTest, ADeletionCanBeCancelledUntilTheStoreSawItsDelay) {
  ASSERT_TRUE(schedule_deletion("one", 7 * kDay));
  clock_.set_by(8 * kDay);
  KeyChange cancel;
  cancel.kind = KeyChange::Kind::cancel_deletion;
  ASSERT_TRUE(engine_->keys().change("one", cancel, kUser));
  EXPECT_EQ(engine_->keys().find("one")->state, "enabled");
}

TEST_F(KeyLifeTest, TimeCountsWhileTheStoreIsInUse) {
  ASSERT_TRUE(schedule_deletion("one", 7 * kDay));
  clock_.pass(3 * kDay);
  close();
  clock_.set_by(8 * kDay);  // a clock without a battery, or a store in a cupboard
  open();
  EXPECT_THAT(told_of_the_clock(), ElementsAre(HasSubstr("8d later than when the store was last in use")));
  EXPECT_TRUE(stays("one"));
  clock_.pass(4 * kDay - 1);
  EXPECT_TRUE(stays("one"));
  close();
  open();
  EXPECT_EQ(told_of_the_clock().size(), 1u) << "that is told once";
  clock_.pass(1);
  EXPECT_TRUE(is_deleted_soon("one"));
}

TEST_F(KeyLifeTest, AClockThatIsSetBackHastensNothingAndDelaysNothing) {
  ASSERT_TRUE(schedule_deletion("one", 7 * kDay));
  clock_.pass(2 * kDay);
  ASSERT_TRUE(exists("one"));  // looks at the clock, as the background thread does each second
  clock_.set_by(-365 * kDay);
  ASSERT_TRUE(soon([&] { return !told_of_the_clock().empty(); }));
  EXPECT_THAT(told_of_the_clock(), ElementsAre(HasSubstr("set back by 365d")));
  EXPECT_TRUE(soon([&] { return engine_->keys().find("one")->deletion <= clock_.wall() + 5 * kDay; }));
  close();
  clock_.set_by(-100 * kDay);
  open();
  EXPECT_TRUE(soon([&] { return told_of_the_clock().size() == 2; }));
  clock_.pass(5 * kDay - 1);
  EXPECT_TRUE(stays("one"));
  clock_.pass(1);
  EXPECT_TRUE(is_deleted_soon("one"));
}

TEST_F(KeyLifeTest, ADeletionThatAnOlderVersionRecordedStartsAnew) {
  ASSERT_TRUE(schedule_deletion("one", 8 * kDay));
  // As if an older version had recorded it, which knows the key's record only.
  close();
  {
    auto store = store::Store::open(path("store"), test::test_credential(), false, nullptr, clock_.source());
    ASSERT_TRUE(store) << test::error_text(store);
    const auto one = (*store)->keys().find("one");
    ASSERT_TRUE(one);
    const auto key = catalog::make_key(catalog::Table::deletion, ByteView(one->id));
    ASSERT_TRUE(*(*store)->catalog().get(key));
    {
      catalog::WriteTxn txn((*store)->catalog());
      txn.erase(key);
      ASSERT_TRUE(txn.commit());
    }
    ASSERT_TRUE((*store)->close());
  }
  clock_.set_by(30 * kDay);
  open();
  EXPECT_TRUE(stays("one"));
  clock_.pass(7 * kDay - 1);
  EXPECT_TRUE(stays("one"));
  clock_.pass(1);
  EXPECT_TRUE(is_deleted_soon("one"));
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
