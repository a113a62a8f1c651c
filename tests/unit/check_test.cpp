// rekeyfs check: stores with each kind of damage, what the check reports, and what a repair keeps.
#include <gmock/gmock.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <map>

#include "engine/check/bench.h"
#include "engine/check/records.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using testing::HasSubstr;
namespace stdfs = std::filesystem;

class CheckTest : public test::TempDirectory {
 protected:
  static constexpr std::size_t kBlock = 16384;

  // A store with some of everything, closed.
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(store(), test::test_credential()));
    open();
    ASSERT_TRUE(engine_->keys().create("tenant", kOperator));
    const auto folder = engine_->names().make_directory(kRootIno, "folder", 0755, kOperator);
    ASSERT_TRUE(folder);
    folder_ = folder->ino;
    ASSERT_TRUE(engine_->names().setxattr(folder_, "user.rekeyfs.key", "tenant", XattrMode::either, kOperator));
    contents_["plain"] = make(kRootIno, "plain", 300);
    contents_["other"] = make(kRootIno, "other", 10);
    contents_["folder/secret"] = make(folder_, "secret", 20);
    ASSERT_TRUE(engine_->names().make_symlink(kRootIno, "link", "plain", kOperator));
    close();
  }

  std::string store() const { return path("store"); }
  void open() {
    OpenOptions options;
    options.filler_workers = 0;
    auto opened = Engine::open(store(), test::test_credential(), options);
    ASSERT_TRUE(opened) << test::error_text(opened);
    engine_ = std::move(*opened);
  }
  void close() {
    ASSERT_TRUE(engine_->close());
    engine_.reset();
  }
  std::string make(Ino directory, const std::string& name, std::size_t blocks) {
    std::string bytes(blocks * kBlock, '\0');
    std::uint64_t state = 88172645463325252u + blocks;
    for (char& byte : bytes) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      byte = static_cast<char>(state >> 32);
    }
    auto created = engine_->files().create(directory, name, 0644, O_RDWR, kOperator);
    EXPECT_TRUE(created);
    const auto written = engine_->files().write(*created->file, 0, as_bytes(bytes));
    EXPECT_TRUE(written && *written == bytes.size());
    EXPECT_TRUE(engine_->files().flush(*created->file));
    return bytes;
  }
  // Without workers a replica stays as the copy has left it.
  void copy(const std::string& from, Ino directory, const std::string& name) {
    const auto source = engine_->files().open(*engine_->names().resolve(from), O_RDONLY, kOperator);
    const auto target = engine_->files().create(directory, name, 0644, O_RDWR, kOperator);
    ASSERT_TRUE(source && target);
    ASSERT_TRUE(engine_->files().copy_range(**source, 0, *target->file, 0, contents_.at(from).size(), kOperator));
    ASSERT_TRUE(engine_->files().flush(*target->file));
  }
  Result<std::string> read(const std::string& name, std::uint64_t offset, std::size_t size) {
    RK_TRY_ASSIGN(const Ino ino, engine_->names().resolve(name));
    RK_TRY_ASSIGN(const OpenFilePtr file, engine_->files().open(ino, O_RDONLY, kOperator));
    std::string bytes(size, '?');
    RK_TRY_ASSIGN(const std::size_t got, engine_->files().read(*file, offset, {reinterpret_cast<std::byte*>(bytes.data()), size}));
    bytes.resize(got);
    return bytes;
  }
  // How many of an image's blocks are errors; every other one is right.
  std::size_t unreadable(const std::string& name) {
    const std::string& expected = contents_.at(name);
    std::size_t errors = 0;
    for (std::size_t at = 0; at < expected.size(); at += kBlock) {
      const auto block = read(name, at, kBlock);
      if (!block) ++errors;
      else EXPECT_EQ(*block, expected.substr(at, kBlock)) << name << " at " << at;
    }
    return errors;
  }
  void expect_whole(const std::string& name) { EXPECT_EQ(unreadable(name), 0u) << name; }

  CheckReport check(bool repair = false, bool read_data = true, const std::string& anchor = "") {
    test::FoundText observer;
    CheckOptions options;
    options.read_data = read_data;
    options.repair = repair;
    options.anchor = anchor;
    auto report = Engine::check(store(), test::test_credential(), options, observer);
    EXPECT_TRUE(report) << test::error_text(report);
    found_ = observer.text;
    return report.value_or(CheckReport{});
  }
  void expect_sound() {
    const CheckReport report = check();
    EXPECT_TRUE(report.complete && report.problems.empty()) << found_;
  }
  // One change of the records, behind everybody's back and made durable, as damage that is authenticated.
  void change(const std::function<void(check::Records&)>& edit) {
    auto bench = check::Bench::open(store(), test::test_credential());
    ASSERT_TRUE(bench);
    ASSERT_TRUE((*bench)->open_catalog());
    test::FoundText quiet;
    check::Findings findings(quiet);
    ASSERT_TRUE((*bench)->open_keys(findings));
    auto records = check::Records::load((*bench)->catalog(), (*bench)->tree(), findings);
    ASSERT_TRUE(records);
    edit(*records);
    ASSERT_TRUE((*bench)->commit());
  }
  static Ino ino_of(const check::Records& records, const std::string& name) {
    for (const auto& [ino, inode] : records.inodes)
      if (inode.name == name) return ino;
    ADD_FAILURE() << "no " << name;
    return {};
  }
  static LayerId layer_of(const check::Records& records, const std::string& name) {
    return records.inodes.at(ino_of(records, name)).image.layer;
  }
  std::vector<std::string> files(const std::string& ending) const {
    std::vector<std::string> found;
    for (const auto& entry : stdfs::recursive_directory_iterator(store()))
      if (entry.path().string().ends_with(ending)) found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    return found;
  }
  // Bytes of disk that the layers' files have.
  std::uint64_t allocated() const {
    constexpr std::uint64_t kUnit = 512;
    std::uint64_t bytes = 0;
    for (const auto& entry : stdfs::recursive_directory_iterator(store() + "/layers")) {
      struct stat facts {};
      if (entry.is_regular_file() && ::stat(entry.path().c_str(), &facts) == 0) bytes += static_cast<std::uint64_t>(facts.st_blocks) * kUnit;
    }
    return bytes;
  }
  static void flip(const std::string& file, std::uint64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(static_cast<char>(byte ^ 0x10));
    ASSERT_TRUE(stream.good()) << file;
  }
  // What the check says of the damage, and that everything is well after the repair.
  void expect_repaired(const std::string& said) {
    const CheckReport found = check();
    EXPECT_FALSE(found.problems.empty());
    EXPECT_THAT(found_, HasSubstr(said));
    EXPECT_FALSE(found.repaired);
    const CheckReport repaired = check(true);
    EXPECT_EQ(repaired.problems.size(), found.problems.size()) << "a check changed the store";
    EXPECT_TRUE(repaired.repaired) << found_;
    expect_sound();
  }

  std::string found_;  // by the last check, as lines
  std::unique_ptr<Engine> engine_;
  std::map<std::string, std::string> contents_;
  Ino folder_;
};

TEST_F(CheckTest, ASoundStoreIsSoundAndUnchanged) {
  const CheckReport report = check();
  EXPECT_TRUE(report.complete && report.problems.empty()) << found_;
  EXPECT_EQ(report.images, 3u);
  EXPECT_EQ(report.directories, 2u);
  EXPECT_EQ(report.links, 1u);
  EXPECT_EQ(report.blocks, 330u);
  EXPECT_EQ(report.keys, 1u);
}

TEST_F(CheckTest, AStoreThatWasKilledIsSound) {
  open();
  contents_["late"] = make(kRootIno, "late", 30);
  ASSERT_TRUE(engine_->names().unlink(kRootIno, "other"));
  test::copy_as_killed(store(), path("copy"));
  close();
  stdfs::rename(store(), path("original"));
  stdfs::rename(path("copy"), store());
  expect_sound();
}

TEST_F(CheckTest, LinkCountsAreCounted) {
  change([](check::Records& records) {
    auto inode = records.inodes.at(ino_of(records, "plain"));
    inode.links = 7;
    records.put(ino_of(records, "plain"), inode);
  });
  expect_repaired("/plain: its link count is 7 and should be 1");
}

TEST_F(CheckTest, ANameThatLeadsToNothingIsRemoved) {
  change([](check::Records& records) { records.put(check::Entry{kRootIno, Ino{900}, NodeKind::symlink, "ghost"}); });
  expect_repaired("/ghost: the name refers to no inode");
}

TEST_F(CheckTest, AnInodeWithoutANameGetsItsNameBack) {
  change([](check::Records& records) { records.erase_entry(records.entry_key(kRootIno, "plain")); });
  expect_repaired("/plain: its directory does not list it");
  open();
  expect_whole("plain");
  close();
}

TEST_F(CheckTest, AnInodeWithoutAPlaceGoesToLostAndFound) {
  change([](check::Records& records) {
    const Ino ino = ino_of(records, "plain");
    auto inode = records.inodes.at(ino);
    records.erase_entry(records.entry_key(kRootIno, "plain"));
    inode.parent = Ino{800};
    records.put(ino, inode);
  });
  expect_repaired("it is moved to /lost+found/inode-");
  open();
  const auto place = engine_->names().resolve("lost+found");
  ASSERT_TRUE(place);
  const auto listed = engine_->names().read_directory(*place, 0, 10);
  ASSERT_TRUE(listed && listed->size() == 1);
  contents_["lost+found/" + listed->front().name] = contents_.at("plain");
  expect_whole("lost+found/" + listed->front().name);
  close();
}

TEST_F(CheckTest, ALostInodeOfAnImageIsMadeAnewAroundItsContent) {
  change([](check::Records& records) { records.erase(ino_of(records, "secret")); });
  expect_repaired("/folder/secret: its inode is missing");
  open();
  expect_whole("folder/secret");
  const auto attributes = engine_->names().getattr(*engine_->names().resolve("folder/secret"));
  ASSERT_TRUE(attributes);
  EXPECT_EQ(attributes->permissions, 0600u);
  EXPECT_EQ(*engine_->names().getxattr(attributes->ino, "user.rekeyfs.encryption"), "kms");
  close();
}

// What is written there afterwards must not become plain by accident.
TEST_F(CheckTest, ALostDirectoryKeepsTheKeyOfItsImages) {
  change([](check::Records& records) { records.erase(ino_of(records, "folder")); });
  expect_repaired("/folder: its inode is missing");
  open();
  expect_whole("folder/secret");
  const Ino folder = *engine_->names().resolve("folder");
  EXPECT_EQ(*engine_->names().getxattr(folder, "user.rekeyfs.key"), "tenant");
  EXPECT_EQ(engine_->names().getattr(folder)->permissions & 0222u, 0u);
  close();
}

TEST_F(CheckTest, AnImageWhoseLayerIsGoneIsRemovedAndTheOthersStay) {
  change([](check::Records& records) { records.erase_layer(layer_of(records, "other")); });
  expect_repaired("/other: the records of its layer");
  open();
  expect_whole("plain");
  expect_whole("folder/secret");
  EXPECT_EQ(engine_->names().resolve("other").error().code, Errc::not_found);
  close();
}

// A layer that was being filled when its image went has lost its source.
TEST_F(CheckTest, ALayerThatCannotBeFilledKeepsNothingElseFromWorking) {
  open();
  copy("plain", folder_, "replica");
  close();
  change([this](check::Records& records) {
    const LayerId source = layer_of(records, "plain"), filled = layer_of(records, "replica");
    auto layer = records.layers.at(filled);
    layer.owner = Ino{};
    records.put(filled, layer);
    records.erase(ino_of(records, "replica"));
    records.erase_entry(records.entry_key(folder_, "replica"));
    records.erase_layer(source);
  });
  ASSERT_NO_FATAL_FAILURE(open());
  expect_whole("other");
  expect_whole("folder/secret");
  close();
}

TEST_F(CheckTest, ALayerNobodyUsesIsRemoved) {
  change([](check::Records& records) {
    auto layer = records.layers.at(layer_of(records, "other"));
    layer.owner = Ino{};
    records.put(layer_of(records, "other"), layer);
    records.erase(ino_of(records, "other"));
    records.erase_entry(records.entry_key(kRootIno, "other"));
  });
  expect_repaired("no image and no other layer uses it");
}

TEST_F(CheckTest, ChildRecordsAndMarksOfGarbageAreCompared) {
  change([](check::Records& records) { records.put_child(layer_of(records, "plain"), layer_of(records, "other")); });
  expect_repaired("is recorded as its child and is not");
  change([](check::Records& records) { records.put(Ino{700}, replication::ReplicationRecord{}); });
  expect_repaired("a replication without an image");
}

TEST_F(CheckTest, AReplicationThatIsHalfOnRecordIsTakenUpAgain) {
  open();  // nothing is filled
  {
    const auto replica = engine_->files().create(folder_, "replica", 0600, O_RDWR, kOperator);
    const auto source = engine_->files().open(*engine_->names().resolve("plain"), O_RDONLY, kOperator);
    ASSERT_TRUE(replica && source);
    ASSERT_TRUE(engine_->files().copy_range(**source, 0, *replica->file, 0, contents_["plain"].size(), kOperator));
    ASSERT_TRUE(engine_->files().flush(*replica->file));
  }
  close();
  contents_["folder/replica"] = contents_["plain"];
  change([](check::Records& records) { records.erase_replication(ino_of(records, "replica")); });
  expect_repaired("its replication is recorded incompletely");
  change([](check::Records& records) {
    names::InodeRecord normal = records.inodes.at(ino_of(records, "replica"));
    normal.image.state = ImageState::normal;
    records.put(ino_of(records, "replica"), normal);
  });
  expect_repaired("its replication is recorded incompletely");
  open();
  EXPECT_EQ(engine_->reports().replications(kRootIno)->size(), 1u);
  expect_whole("folder/replica");
  close();
}

TEST_F(CheckTest, AReplicationOfACompleteImageIsForgotten) {
  change([](check::Records& records) { records.put(ino_of(records, "plain"), replication::ReplicationRecord{now(), "/other", 0}); });
  expect_repaired("it is recorded as replicating and is complete");
}

TEST_F(CheckTest, FilesOfNoLayerAreRemoved) {
  std::ofstream(store() + "/layers/ff/00000000000000ff.data0") << "left over";
  expect_repaired("layers/ff/00000000000000ff.data0: belongs to no layer");
  EXPECT_FALSE(stdfs::exists(store() + "/layers/ff/00000000000000ff.data0"));
}

// What a power cut leaves of images whose records it took, the next opening gives back.
TEST_F(CheckTest, AnOpeningRemovesFilesThatAreOnNoRecord) {
  const std::string layer = store() + "/layers/ff/00000000000000ff";
  for (const char* ending : {".data0", ".spill0", ".table"}) std::ofstream(layer + ending) << "left over";
  std::ofstream(store() + "/layers/ff/ffffffffffffffff.data0") << "forged";  // no layer gets as far
  std::ofstream(store() + "/layers/ff/00000000000000fe.data0") << "forged";  // in another directory's place
  std::ofstream(store() + "/journal/0000000000000001") << "removed, and brought back";
  open();
  EXPECT_EQ(test::journal_of(store()).size(), 1u);
  contents_["new"] = make(kRootIno, "new", 3);
  close();
  EXPECT_EQ(files("00ff.data0").size() + files(".spill0").size() + files("00ff.table").size(), 0u);
  EXPECT_EQ(files("fffff.data0").size(), 1u);
  EXPECT_EQ(files("00fe.data0").size(), 1u);
  EXPECT_EQ(files("0000000000000100.data0").size(), 1u) << "the number of a file that was there is given out again";
  open();
  for (const auto& [name, content] : contents_) expect_whole(name);
  close();
}

TEST_F(CheckTest, FilesOnNoRecordStayWhereTheJournalIsDamaged) {
  open();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(engine_->names().make_directory(kRootIno, "d" + std::to_string(i), 0755, kOperator));
  test::copy_as_killed(store(), path("copy"));
  close();
  stdfs::rename(store(), path("original"));
  stdfs::rename(path("copy"), store());
  flip(store() + "/journal/" + test::journal_of(store()).front(), 52 + 4 + 40);
  std::ofstream(store() + "/layers/ff/00000000000000ff.data0") << "of an image that the journal spoke of";
  open();
  close();
  EXPECT_EQ(files("00ff.data0").size(), 1u);
}

TEST_F(CheckTest, ADeletedImageWhoseFilesCannotBeRemovedKeepsNothingElseFromWorking) {
  const std::string file = files(".data0")[1];
  stdfs::remove(file);
  stdfs::create_directory(file);
  open();
  ASSERT_TRUE(engine_->names().unlink(kRootIno, "other"));
  ASSERT_TRUE(engine_->sync_all());
  contents_["new"] = make(kRootIno, "new", 3);
  close();
  open();
  expect_whole("plain");
  expect_whole("new");
  close();
}

// A layer that is being rewritten keeps slots allocated that hold nothing; a kill leaves them so.
TEST_F(CheckTest, ARepairGivesBackWhatAKillLeftAllocated) {
  open();
  {
    const OpenFilePtr image = std::move(*engine_->files().open(*engine_->names().resolve("plain"), O_RDWR, kOperator));
    for (char round = 'a'; round < 'e'; ++round) {
      contents_.at("plain").replace(0, 200 * kBlock, std::string(200 * kBlock, round));
      ASSERT_TRUE(engine_->files().write(*image, 0, as_bytes(contents_.at("plain").substr(0, 200 * kBlock))));
      ASSERT_TRUE(engine_->sync_all());
    }
  }
  test::copy_as_killed(store(), path("copy"));
  close();
  stdfs::rename(store(), path("original"));
  stdfs::rename(path("copy"), store());
  const std::uint64_t content = 330 * kBlock, before = allocated();
  ASSERT_GT(before, content + 150 * kBlock);
  const CheckReport report = check(true);
  EXPECT_TRUE(report.problems.empty() && report.repaired) << found_;
  EXPECT_LE(allocated(), content + 20 * kBlock);
  expect_sound();
  open();
  for (const auto& [name, bytes] : contents_) expect_whole(name);
  close();
}

TEST_F(CheckTest, ADamagedBlockIsNamedAndTheRestGoesOn) {
  flip(files(".data0").front(), 5 * kBlock + 100);
  flip(files(".data0").front(), 9 * kBlock);
  const CheckReport report = check(true);
  ASSERT_EQ(report.problems.size(), 2u) << found_;
  EXPECT_FALSE(report.repaired);
  EXPECT_EQ(report.problems[0].path, "/plain");
  EXPECT_EQ(report.problems[0].offset, 5 * kBlock);
  EXPECT_EQ(report.problems[0].size, kBlock);
  EXPECT_EQ(report.problems[1].offset, 9 * kBlock);
  EXPECT_TRUE(check(false, false).problems.empty()) << "blocks were read without being asked for";
  open();
  EXPECT_EQ(unreadable("plain"), 2u);
  close();
}

TEST_F(CheckTest, AMissingOrTruncatedDataFileIsFoundWithoutReading) {
  const std::string file = files(".data0").front();
  stdfs::resize_file(file, 100 * kBlock);
  CheckReport report = check(false, false);
  ASSERT_EQ(report.problems.size(), 1u) << found_;
  EXPECT_EQ(report.problems[0].offset, 100 * kBlock);
  EXPECT_EQ(report.problems[0].size, 200 * kBlock);
  stdfs::remove(file);
  report = check(false, false);
  ASSERT_EQ(report.problems.size(), 1u) << found_;
  EXPECT_EQ(report.problems[0].size, 300 * kBlock);
}

// Any one page: the others' blocks are right, those of the page are errors for good, and the image can be written.
TEST_F(CheckTest, ALostTablePageTakesItsBlocksOnly) {
  const std::string file = files(".table").front();
  const std::string whole = path("whole");
  stdfs::copy_file(file, whole);
  std::size_t hit = 0;
  for (std::uint64_t page = 1; page * 4096 < stdfs::file_size(whole); ++page) {
    stdfs::copy_file(whole, file, stdfs::copy_options::overwrite_existing);
    flip(file, page * 4096 + 1000);
    const CheckReport report = check(true);
    EXPECT_TRUE(report.complete);
    if (report.problems.empty()) continue;  // a page of an older tree
    ++hit;
    EXPECT_EQ(report.problems[0].path, "/plain") << found_;
    std::size_t lost = 0;
    for (const CheckProblem& problem : report.problems) lost += problem.size / kBlock;
    open();
    expect_whole("other");
    expect_whole("folder/secret");
    EXPECT_EQ(unreadable("plain"), lost);
    const std::size_t written = read("plain", 0, kBlock) ? 0 : 1;
    {
      const OpenFilePtr image = std::move(*engine_->files().open(*engine_->names().resolve("plain"), O_RDWR, kOperator));
      ASSERT_TRUE(engine_->files().write(*image, 0, as_bytes(contents_.at("plain").substr(0, kBlock))));
    }
    close();
    open();
    EXPECT_EQ(unreadable("plain"), lost - written);
    close();
    stdfs::remove_all(store());
    contents_.clear();
    SetUp();
    stdfs::copy_file(files(".table").front(), whole, stdfs::copy_options::overwrite_existing);
  }
  EXPECT_GE(hit, 3u);
}

TEST_F(CheckTest, DamageInTheMiddleOfTheJournalIsToldFromItsEnd) {
  open();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(engine_->names().make_directory(kRootIno, "d" + std::to_string(i), 0755, kOperator));
  test::copy_as_killed(store(), path("copy"));
  close();
  stdfs::rename(store(), path("original"));
  stdfs::rename(path("copy"), store());
  const std::string segment = store() + "/journal/" + test::journal_of(store()).front();
  const std::uint64_t size = stdfs::file_size(segment);
  stdfs::copy_file(segment, path("segment"));
  stdfs::resize_file(segment, size - 3);  // torn
  expect_sound();
  stdfs::copy_file(path("segment"), segment, stdfs::copy_options::overwrite_existing);
  flip(segment, 52 + 4 + 40);
  expect_repaired("is damaged at byte 52");
  open();
  expect_whole("plain");
  close();
}

TEST_F(CheckTest, AKeyThatIsDisabledIsNotDamage) {
  open();
  KeyChange change;
  change.kind = KeyChange::Kind::disable;
  change.force = true;
  ASSERT_TRUE(engine_->keys().change("tenant", change, kOperator));
  close();
  flip(files(".data0").back(), 100);
  const CheckReport report = check();
  EXPECT_TRUE(report.problems.empty()) << found_;
  ASSERT_EQ(report.unverified.size(), 1u);
  EXPECT_EQ(report.unverified[0].path, "/folder/secret");
}

// Any one page of the catalog, branches and the first two as well: the store can be mounted again, with all images or all
// but those whose records were on that page, and no image has other bytes.
TEST_F(CheckTest, AnyOnePageOfTheCatalogMayBeLost) {
  open();
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(engine_->names().make_directory(kRootIno, "directory-" + std::to_string(i), 0755, kOperator));
  close();
  stdfs::copy(store(), path("whole"), stdfs::copy_options::recursive);
  const std::uint64_t pages = stdfs::file_size(store() + "/catalog/data.mdb") / 4096;
  ASSERT_GT(pages, 8u);
  std::size_t hit = 0, whole = 0;
  for (std::uint64_t page = 0; page < pages; ++page) {
    stdfs::remove_all(store());
    stdfs::copy(path("whole"), store(), stdfs::copy_options::recursive);
    {
      std::fstream stream(store() + "/catalog/data.mdb", std::ios::in | std::ios::out | std::ios::binary);
      stream.seekp(static_cast<std::streamoff>(page * 4096));
      stream << std::string(4096, 'x');
    }
    const CheckReport report = check(true);
    EXPECT_TRUE(report.complete) << "page " << page << "\n" << found_;
    if (report.problems.empty()) continue;
    ++hit;
    EXPECT_FALSE(stdfs::exists(store() + "/catalog.new"));
    EXPECT_TRUE(check().problems.empty()) << "page " << page << "\n" << found_;
    open();
    ASSERT_TRUE(engine_) << "page " << page;
    std::size_t images = 0;
    for (const auto& [name, content] : contents_) {
      if (!engine_->names().resolve(name)) continue;
      ++images;
      static_cast<void>(unreadable(name));  // compares what can be read
    }
    whole += images == contents_.size() ? 1 : 0;
    close();
  }
  EXPECT_GE(hit, 5u);
  EXPECT_GE(whole, 3u) << "of " << hit;
}

TEST_F(CheckTest, AJournalWithoutItsBeginningIsRefusedAndBegunAnew) {
  for (const std::string& name : test::journal_of(store())) stdfs::remove(store() + "/journal/" + name);
  EXPECT_EQ(Engine::open(store(), test::test_credential(), {}).error().code, Errc::corrupt);
  expect_repaired("is missing");
  open();
  expect_whole("plain");
  close();
}

TEST_F(CheckTest, AnOlderStoreThanItsAnchorIsToldEvenWhenItWasMountedAgain) {
  const std::string before = check().anchor;
  ASSERT_FALSE(before.empty());
  EXPECT_TRUE(check(false, false, before).problems.empty()) << found_;
  stdfs::copy(store(), path("old"), stdfs::copy_options::recursive);
  open();
  ASSERT_TRUE(engine_->names().unlink(kRootIno, "other"));
  close();
  EXPECT_TRUE(check(false, false, before).problems.empty()) << "a newer store: " << found_;
  const std::string after = check().anchor;
  stdfs::remove_all(store());
  stdfs::rename(path("old"), store());
  const CheckReport report = check(false, false, after);
  ASSERT_EQ(report.problems.size(), 1u);
  EXPECT_EQ(report.problems[0].kind, CheckProblem::Kind::rollback);
  for (int i = 0; i < 4; ++i) {
    open();
    ASSERT_TRUE(engine_->names().make_directory(kRootIno, "d" + std::to_string(i), 0755, kOperator));
    close();
  }
  EXPECT_EQ(check(false, false, after).problems.size(), 1u) << "its numbers have grown past the anchor's";
}

// A copy of the same mount, one checkpoint back; and mounted again, with as many checkpoints and mounts as there were.
TEST_F(CheckTest, AnOlderStateOfTheAnchorsMountIsTold) {
  open();
  ASSERT_TRUE(engine_->names().make_directory(kRootIno, "one", 0755, kOperator));
  test::copy_as_killed(store(), path("old"));
  ASSERT_TRUE(engine_->names().make_directory(kRootIno, "two", 0755, kOperator));
  ASSERT_TRUE(engine_->sync_all());
  engine_.reset();
  const std::string anchor = check().anchor;
  ASSERT_FALSE(anchor.empty());
  stdfs::remove_all(store());
  stdfs::rename(path("old"), store());
  EXPECT_EQ(check(false, false, anchor).problems.size(), 1u) << "one checkpoint back";
  open();  // makes the checkpoint that has the anchor's number
  engine_.reset();
  EXPECT_EQ(check(false, false, anchor).problems.size(), 1u) << "of that number, and another one";
}

}  // namespace
}  // namespace rekeyfs
