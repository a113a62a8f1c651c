// Features of stores. Stores written by a later version of rekeyfs: this version keeps what it does not know, or leaves
// the store alone. And flags that are set in a store that is in use.
#include <gmock/gmock.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "engine/blocks/layer_record.h"
#include "engine/namespace/tree.h"
#include "engine/store/store.h"
#include "tests/support/kill_points.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/store_features.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

namespace stdfs = std::filesystem;
using catalog::Table;
using catalog::make_key;
using test::error_text;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr Caller kRoot{0, 0, true};
const std::string kContent = "what the image holds";
const std::string kLater = Writer().put(std::uint8_t{7}).put_string("a field of later").put(std::uint8_t{200}).put_string("").take();

class FeaturesTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(store(), test::test_credential()));
    const auto engine = open();
    ASSERT_TRUE(engine);
    ASSERT_TRUE((*engine)->keys().create("key", kRoot));
    const auto folder = (*engine)->names().make_directory(kRootIno, "folder", 0755, kRoot);
    ASSERT_TRUE(folder);
    folder_ = folder->ino;
    ASSERT_TRUE((*engine)->names().setxattr(folder_, "user.rekeyfs.key", "key", XattrMode::either, kRoot));
    auto created = (*engine)->files().create(folder_, "image", 0600, O_RDWR, kRoot);
    ASSERT_TRUE(created) << error_text(created);
    image_ = created->attributes.ino;
    ASSERT_TRUE((*engine)->files().write(*created->file, 0, as_bytes(kContent)));
    ASSERT_TRUE((*engine)->files().flush(*created->file));
    created->file.reset();
    ASSERT_TRUE((*engine)->close());
  }

  std::string store() const { return path("store"); }
  Result<std::unique_ptr<Engine>> open(bool read_only = false) {
    OpenOptions options;
    options.filler_workers = 0;
    options.read_only = read_only;
    return Engine::open(store(), test::test_credential(), options);
  }
  Result<CheckReport> check(bool repair = false) {
    CheckOptions options;
    options.repair = repair;
    options.read_data = true;
    return Engine::check(store(), test::test_credential(), options, found_);
  }
  std::string content(Engine& engine) {
    auto file = engine.files().open(image_, O_RDONLY, kRoot);
    if (!file) return error_text(file);
    std::string got(kContent.size(), '\0');
    const auto size = engine.files().read(**file, 0, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    return size ? got : error_text(size);
  }
  static std::string refusal(const Status& status) {
    if (status) return "none";
    EXPECT_EQ(status.error().code, Errc::wrong_version) << error_text(status.error());
    return status.error().message;
  }
  template <typename T>
  static std::string refusal(const Result<T>& result) {
    return refusal(result ? Status{} : Status(fail(result.error())));
  }
  // Every file and its bytes.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> all;
    for (const auto& entry : stdfs::recursive_directory_iterator(store())) {
      if (!entry.is_regular_file() || entry.path().filename() == "lock") continue;
      std::ifstream in(entry.path(), std::ios::binary);
      all.emplace(entry.path(), std::string(std::istreambuf_iterator<char>(in), {}));
    }
    return all;
  }

  // What a later version does to a record.
  void change_records(const std::function<void(catalog::WriteTxn&)>& change) {
    auto opened = store::Store::open(store(), test::test_credential(), false);
    ASSERT_TRUE(opened) << error_text(opened);
    {
      catalog::WriteTxn txn((*opened)->catalog());
      change(txn);
      ASSERT_TRUE(txn.commit());
    }
    ASSERT_TRUE((*opened)->close());
  }
  std::string record(const std::string& key) {
    auto opened = store::Store::open(store(), test::test_credential(), true);
    EXPECT_TRUE(opened) << error_text(opened);
    const auto value = opened ? (*opened)->catalog().get(key) : fail(Errc::io);
    return value && *value ? **value : "missing";
  }
  std::string inode_key(Ino ino) const { return make_key(Table::inode, ino.value()); }
  std::string layer_key() { return make_key(Table::layer, names::InodeRecord::decode(record(inode_key(image_)))->image.layer.value()); }

  // In a child process, which reports where it was killed; empty: it was not.
  std::string require_and_die_at(std::uint64_t number, test::Moment moment) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const auto opened = store::Store::open(stdfs::canonical(store()), test::test_credential(), false);
      if (!opened) _exit(1);
      test::arm_kill_point(stdfs::canonical(store()), number, moment, ends[1]);
      _exit((*opened)->require(store::Feature::rules) ? 0 : 1);
    }
    ::close(ends[1]);
    char point[256];
    const ssize_t size = ::read(ends[0], point, sizeof point);
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(WIFSIGNALED(status), size > 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return size > 1 ? std::string(point, static_cast<std::size_t>(size - 1)) : "";
  }

  Ino folder_, image_;
  test::FoundText found_;
};

TEST_F(FeaturesTest, OneThatIsCompatibleIsNamedAndGoesOn) {
  test::give_features(store(), {.compat = 1u << 3}, "what the flag adds");
  {
    const auto engine = open();
    ASSERT_TRUE(engine) << error_text(engine);
    EXPECT_THAT((*engine)->reports().unknown_features(), ElementsAre("compat 3"));
    EXPECT_EQ(content(**engine), kContent);
    EXPECT_TRUE((*engine)->names().make_directory(kRootIno, "more", 0755, kRoot));
    ASSERT_TRUE((*engine)->close());
  }
  EXPECT_TRUE(open(true));
  for (const bool repair : {false, true}) {
    const auto report = check(repair);
    ASSERT_TRUE(report) << error_text(report);
    EXPECT_TRUE(report->complete);
    EXPECT_EQ(found_.text, "");
    ASSERT_EQ(report->unverified.size(), 1u);
    EXPECT_THAT(report->unverified[0].why, HasSubstr("compat 3"));
  }
  EXPECT_EQ(Engine::initialize(store(), test::test_credential()).error().code, Errc::exists);
}

TEST_F(FeaturesTest, OneThatForbidsChangesLetsTheStoreBeRead) {
  test::give_features(store(), {.ro_compat = 1u << 2});
  const auto before = files();
  EXPECT_THAT(refusal(open()), testing::AllOf(HasSubstr("ro_compat 2"), HasSubstr("-o ro")));
  {
    const auto engine = open(true);
    ASSERT_TRUE(engine) << error_text(engine);
    EXPECT_THAT((*engine)->reports().unknown_features(), ElementsAre("ro_compat 2"));
    EXPECT_EQ(content(**engine), kContent);
    EXPECT_EQ((*engine)->names().make_directory(kRootIno, "more", 0755, kRoot).error().code, Errc::read_only);
    ASSERT_TRUE((*engine)->close());
  }
  const auto report = check();
  ASSERT_TRUE(report) << error_text(report);
  EXPECT_EQ(found_.text, "");
  ASSERT_EQ(report->unverified.size(), 1u);
  EXPECT_THAT(report->unverified[0].why, HasSubstr("ro_compat 2"));
  EXPECT_THAT(refusal(check(true)), HasSubstr("ro_compat 2"));
  EXPECT_EQ(Engine::initialize(store(), test::test_credential()).error().code, Errc::exists);
  EXPECT_EQ(files(), before);
}

TEST_F(FeaturesTest, OneThatForbidsChangesForbidsRecovery) {
  {
    const auto engine = open();
    ASSERT_TRUE(engine);
    ASSERT_TRUE((*engine)->names().make_directory(kRootIno, "more", 0755, kRoot));
    test::copy_as_killed(store(), path("killed"));
    ASSERT_TRUE((*engine)->close());
  }
  stdfs::remove_all(store());
  stdfs::rename(path("killed"), store());
  test::give_features(store(), {.ro_compat = 1u << 5});
  const auto before = files();
  EXPECT_THAT(refusal(open(true)), HasSubstr("ro_compat 5"));
  EXPECT_EQ(files(), before);
}

TEST_F(FeaturesTest, OneThatIsIncompatibleIsRefusedByName) {
  test::give_features(store(), {.compat = 1, .incompat = 1u | std::uint64_t{1} << 63});
  const auto before = files();
  const auto names_it = HasSubstr("(incompat 63)");
  EXPECT_THAT(refusal(open()), names_it);
  EXPECT_THAT(refusal(open(true)), names_it);
  EXPECT_THAT(refusal(check()), names_it);
  EXPECT_THAT(refusal(check(true)), names_it);
  EXPECT_THAT(refusal(Engine::unlocked_by(store())), names_it);
  EXPECT_EQ(Engine::initialize(store(), test::test_credential()).error().code, Errc::exists);
  EXPECT_EQ(files(), before);
}

TEST_F(FeaturesTest, FlagsAreAuthenticated) {
  test::give_features(store(), {.ro_compat = 1u << 5});
  std::fstream file(store() + "/rekeyfs.store", std::ios::binary | std::ios::in | std::ios::out);
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  bytes[164] = 0;
  crypto::Sha256 hash;
  hash.update(as_bytes(bytes).first(bytes.size() - 64));
  bytes.replace(bytes.size() - 64, 32, as_text(hash.finish()));
  file.seekp(0);
  file << bytes << std::flush;
  EXPECT_EQ(open().error().code, Errc::corrupt);
}

TEST_F(FeaturesTest, FieldsOfLaterVersionsOutliveEveryChange) {
  const std::string layer = layer_key();
  change_records([&](catalog::WriteTxn& txn) {
    for (const std::string& key : {inode_key(image_), inode_key(folder_), layer}) txn.put(key, **txn.get(key) + kLater);
  });
  const auto kept = [&](const std::string& key) { return record(key).ends_with(kLater); };
  {
    const auto engine = open();
    ASSERT_TRUE(engine) << error_text(engine);
    EXPECT_EQ(content(**engine), kContent);
    ASSERT_TRUE((*engine)->names().setxattr(image_, "user.rekeyfs.type", "data-disk", XattrMode::either, kRoot));
    ASSERT_TRUE((*engine)->names().setxattr(folder_, "user.colour", "blue", XattrMode::either, kRoot));
    ASSERT_TRUE((*engine)->names().rename(folder_, "image", folder_, "renamed", RenameMode::replace, kRoot));
    ASSERT_TRUE((*engine)->names().rename(kRootIno, "folder", kRootIno, "moved", RenameMode::replace, kRoot));
    ASSERT_TRUE((*engine)->keys().change("key", KeyChange{}, kRoot));  // wraps the layer's data key anew
    ASSERT_TRUE((*engine)->close());
  }
  EXPECT_TRUE(kept(inode_key(image_)) && kept(inode_key(folder_)) && kept(layer));
  const auto report = check(true);
  ASSERT_TRUE(report) << error_text(report);
  EXPECT_EQ(found_.text, "");
  EXPECT_TRUE(kept(inode_key(image_)) && kept(inode_key(folder_)) && kept(layer));
}

TEST_F(FeaturesTest, ARepairKeepsRecordsOfTablesItDoesNotKnow) {
  change_records([&](catalog::WriteTxn& txn) {
    txn.put("Z", "a table without numbers");
    txn.put("z12345678", "another");
    txn.put(make_key(Table::orphan, 4711), "");  // something to repair
  });
  const auto report = check(true);
  ASSERT_TRUE(report) << error_text(report);
  EXPECT_TRUE(report->repaired) << found_.text;
  ASSERT_EQ(report->unverified.size(), 1u);
  EXPECT_THAT(report->unverified[0].why, HasSubstr("2 records"));
  EXPECT_EQ(record("Z"), "a table without numbers");
  EXPECT_EQ(record("z12345678"), "another");
  EXPECT_EQ(record(make_key(Table::orphan, 4711)), "missing");
}

TEST_F(FeaturesTest, ARecordOfAnotherLayoutIsNeitherReadNorRepaired) {
  const std::string layer = layer_key();
  for (const std::string& key : {inode_key(image_), layer}) {
    std::string before;
    change_records([&](catalog::WriteTxn& txn) {
      before = **txn.get(key);
      txn.put(key, "\x80 something else");
    });
    const auto files_before = files();
    EXPECT_NE(refusal(check()), "none");
    EXPECT_NE(refusal(check(true)), "none");
    EXPECT_EQ(files(), files_before);
    {
      const auto engine = open();
      ASSERT_TRUE(engine) << error_text(engine);
      const auto file = (*engine)->files().open(image_, O_RDONLY, kRoot);
      EXPECT_NE(refusal(file), "none");
      ASSERT_TRUE((*engine)->close());
    }
    EXPECT_EQ(record(key), "\x80 something else");
    change_records([&](catalog::WriteTxn& txn) { txn.put(key, before); });
  }
}

// A flag that is set while the store is in use.

TEST_F(FeaturesTest, AFlagIsSetBeforeItsFirstUse) {
  test::give_features(store(), {.compat = 1u << 3}, "what the flag adds");
  {
    const auto opened = store::Store::open(store(), test::test_credential(), false);
    ASSERT_TRUE(opened) << error_text(opened);
    ASSERT_TRUE((*opened)->require(store::Feature::rules));
    EXPECT_TRUE(has((*opened)->features(), store::Feature::rules));
    const auto durable = files();
    ASSERT_TRUE((*opened)->require(store::Feature::rules));
    EXPECT_EQ(files(), durable) << "it was set already";
    ASSERT_TRUE((*opened)->require(store::Feature::key_rights));
    ASSERT_TRUE((*opened)->close());
  }
  EXPECT_FALSE(stdfs::exists(store() + "/rekeyfs.store.new"));
  EXPECT_EQ(stdfs::file_size(store() + "/rekeyfs.store"), 244u + std::string("what the flag adds").size());
  {
    const auto engine = open();
    ASSERT_TRUE(engine) << error_text(engine);
    EXPECT_THAT((*engine)->reports().unknown_features(), ElementsAre("compat 3"));
    EXPECT_EQ(content(**engine), kContent);
    ASSERT_TRUE((*engine)->close());
  }
  const auto opened = store::Store::open(store(), test::test_credential(), true);
  ASSERT_TRUE(opened) << error_text(opened);
  EXPECT_EQ((*opened)->features(), (store::Features{.compat = 1u << 3, .ro_compat = 1, .incompat = 1}));
}

TEST_F(FeaturesTest, AStoreHasFormatVersion1UntilItNeedsAFlag) {
  EXPECT_EQ(stdfs::file_size(store() + "/rekeyfs.store"), 220u);
  {
    const auto opened = store::Store::open(store(), test::test_credential(), true);
    ASSERT_TRUE(opened) << error_text(opened);
    EXPECT_EQ((*opened)->require(store::Feature::rules).error().code, Errc::read_only);
  }
  EXPECT_EQ(stdfs::file_size(store() + "/rekeyfs.store"), 220u);
}

TEST_F(FeaturesTest, AFlagThatCannotBeWrittenIsNotSet) {
  using Operation = test::FaultyStorage::Operation;
  for (const Operation failing : {Operation::open, Operation::write, Operation::sync}) {
    test::FaultyStorage storage(store());
    auto opened = store::Store::open(store(), test::test_credential(), false, std::make_unique<test::BorrowedStorage>(storage));
    ASSERT_TRUE(opened) << error_text(opened);
    storage.set_hook([&](Operation operation, const std::string& path) -> Status {
      return operation == failing && path == "rekeyfs.store.new" ? fail(Errc::io, "the disk fails") : Status{};
    });
    const Status set = (*opened)->require(store::Feature::rules);
    ASSERT_FALSE(set);
    EXPECT_THAT(set.error().message, testing::AllOf(HasSubstr("\"rules\""), HasSubstr("the disk fails")));
    EXPECT_EQ((*opened)->features(), store::Features{});
    EXPECT_EQ(stdfs::file_size(store() + "/rekeyfs.store"), 220u);
    storage.set_hook(nullptr);
    EXPECT_TRUE((*opened)->may_write());
    ASSERT_TRUE((*opened)->close());
  }
}

// The points of a file and its directory that the name of the new superblock must not precede.
TEST_F(FeaturesTest, AFlagIsDurableWhenItIsSet) {
  using Operation = test::FaultyStorage::Operation;
  test::FaultyStorage storage(store());
  store::Unlocked unlocked = std::move(*store::open_superblock(storage, test::test_credential()));
  std::vector<std::string> synced;
  storage.set_hook([&](Operation operation, const std::string& path) -> Status {
    const bool renamed = !stdfs::exists(store() + "/rekeyfs.store.new");
    if (operation == Operation::sync) synced.push_back((path.empty() ? "directory" : path) + (renamed ? ", renamed" : ""));
    return {};
  });
  ASSERT_TRUE(store::put_features(storage, unlocked, {.ro_compat = 1}));
  EXPECT_THAT(synced, ElementsAre("rekeyfs.store.new", "directory", "directory, renamed"));
}

TEST_F(FeaturesTest, AKillLeavesTheOldOrTheNewFlags) {
  stdfs::rename(store(), path("before"));
  std::set<std::string> points;
  std::uint64_t with_flag = 0;
  for (const test::Moment moment : {test::Moment::before, test::Moment::halfway, test::Moment::after}) {
    bool killed = true;
    for (std::uint64_t number = 1; killed; ++number) {
      stdfs::remove_all(store());
      stdfs::create_directory(store());
      std::ofstream(store() + "/reserve").close();  // the space in it need not be copied
      stdfs::copy(path("before"), store(), stdfs::copy_options::recursive | stdfs::copy_options::skip_existing);
      const std::string point = require_and_die_at(number, moment);
      killed = !point.empty();
      points.insert(point);
      const auto opened = store::Store::open(store(), test::test_credential(), false);
      ASSERT_TRUE(opened) << point << error_text(opened);
      const bool flag = has((*opened)->features(), store::Feature::rules);
      with_flag += flag;
      EXPECT_TRUE(killed || flag) << "it was acknowledged";
      ASSERT_TRUE((*opened)->require(store::Feature::rules)) << point << ": what the kill left must not be in the way";
      ASSERT_TRUE((*opened)->close());
    }
  }
  EXPECT_THAT(points, testing::IsSupersetOf({"rekeyfs.store.new write", "rekeyfs.store.new sync", "rekeyfs.store.new rename", "store sync"}));
  EXPECT_GT(with_flag, 3u);
}

TEST(LaterFieldsTest, AreFieldsAndNothingElse) {
  names::InodeRecord inode;
  inode.kind = NodeKind::directory;
  const std::string bytes = inode.encode();
  const auto grown = names::InodeRecord::decode(bytes + kLater);
  ASSERT_TRUE(grown);
  EXPECT_FALSE(grown->later.empty());
  EXPECT_EQ(grown->encode(), bytes + kLater);
  EXPECT_TRUE(names::InodeRecord::decode(bytes)->later.empty());
  for (std::size_t size = 1; size < kLater.size(); ++size) {
    const auto cut = names::InodeRecord::decode(bytes + kLater.substr(0, size));
    EXPECT_TRUE(cut ? cut->encode() == bytes + kLater.substr(0, size) : cut.error().code == Errc::corrupt) << size;
  }
}

}  // namespace
}  // namespace rekeyfs
