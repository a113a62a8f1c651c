// Boot profiles: which reads are recorded, which image a profile belongs to, and which images use it.
#include <fcntl.h>

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>

#include "engine/boot/boot_profile.h"
#include "tests/support/store_user.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using ::testing::ElementsAre;
using test::StoreUser;
using test::error_text;

constexpr std::uint64_t kUnit = boot::BootProfile::kUnit;
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kImageSize = 16 * kMiB;

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

TEST(BootProfileTest, ComesBackFromItsBytes) {
  boot::BootProfile profile;
  profile.recorded = 17;
  profile.runs = {{5, 2}, {0, 1}, {1u << 29, 1u << 29}};
  const auto again = boot::BootProfile::decode(profile.encode());
  ASSERT_TRUE(again) << error_text(again);
  EXPECT_EQ(again->recorded, 17);
  EXPECT_EQ(again->runs, profile.runs);
  EXPECT_EQ(profile.bytes(), (3 + (std::uint64_t{1} << 29)) * kUnit);
}

TEST(BootProfileTest, BytesThatAreNoneAreRefused) {
  auto bytes_of = [](std::vector<boot::Run> runs) {
    boot::BootProfile profile;
    profile.runs = std::move(runs);
    return profile.encode();
  };
  const std::string whole = bytes_of({{1, 1}, {3, 1}});
  EXPECT_TRUE(boot::BootProfile::decode(whole));
  EXPECT_FALSE(boot::BootProfile::decode(whole + "x"));
  EXPECT_FALSE(boot::BootProfile::decode(whole.substr(0, whole.size() - 1)));
  EXPECT_FALSE(boot::BootProfile::decode(""));
  EXPECT_FALSE(boot::BootProfile::decode(bytes_of({})));
  EXPECT_FALSE(boot::BootProfile::decode(bytes_of({{1, 0}})));
  EXPECT_FALSE(boot::BootProfile::decode(bytes_of({{1u << 30, 1}})));
  EXPECT_FALSE(boot::BootProfile::decode(bytes_of({{0xffffffff, 0xffffffff}})));
  EXPECT_FALSE(boot::BootProfile::decode(bytes_of(std::vector<boot::Run>(boot::BootProfile::kMaxRuns + 1, {1, 1}))));
}

// A store with a disk that fast create made, fast/disk, and directories for its clones (vms) and its replicas (other).
class BootTest : public test::TempDirectory {
 protected:
  BootTest() {
    EXPECT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    reopen();
    must(user_->create_key("one"));
    must(user_->create_key("two"));
    for (const auto& [directory, key] : {std::pair{"fast", "one"}, {"vms", "one"}, {"other", "two"}}) {
      must(user_->make_directory(directory));
      must(user_->set(directory, "user.rekeyfs.key", key));
    }
    must(user_->set("fast", "user.rekeyfs.fast_create", "1"));
    must(user_->create("fast/disk"));
    must(user_->write("fast/disk", 0, test_bytes()));
    must(user_->close_file("fast/disk"));
    EXPECT_EQ(attribute("fast/disk", "fast_create"), "1");
  }
  ~BootTest() override {
    if (user_) EXPECT_TRUE(user_->close());
  }

  void reopen(unsigned filler_workers = 1) {
    close();
    auto opened = StoreUser::open(path("store"), filler_workers);
    ASSERT_TRUE(opened) << error_text(opened);
    user_ = std::move(*opened);
  }
  void close() {
    if (user_) must(user_->close());
    user_.reset();
  }

  static void must(const Status& status) { ASSERT_TRUE(status) << error_text(status.error()); }
  static std::string test_bytes() {
    std::string bytes(kImageSize, '\0');
    std::mt19937_64 random(1);
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      const std::uint64_t word = random();
      std::memcpy(&bytes[at], &word, 8);
    }
    return bytes;
  }
  std::string attribute(const std::string& name, const std::string& which) {
    const auto value = user_->engine().names().getxattr(*user_->ino(name), "user.rekeyfs." + which);
    return value ? *value : error_text(value);
  }

  // Finds the file of the layer's blocks by its name, and overwrites its first one.
  void damage_first_block_of(std::uint64_t layer) {
    char name[32];
    std::snprintf(name, sizeof name, "%016jx", static_cast<std::uintmax_t>(layer));
    int damaged = 0;
    for (const auto& file : std::filesystem::recursive_directory_iterator(path("store/layers"))) {
      const std::string found = file.path().filename();
      if (!found.starts_with(name) || found.ends_with(".table")) continue;
      std::fstream(file.path(), std::ios::in | std::ios::out | std::ios::binary) << "damaged";
      ++damaged;
    }
    ASSERT_EQ(damaged, 1);
  }

  // As cp does it.
  void copy(const std::string& from, const std::string& to) {
    auto& engine = user_->engine();
    must(user_->create(to));
    const auto in = engine.files().open(*user_->ino(from), O_RDONLY, kOperator);
    ASSERT_TRUE(in) << error_text(in);
    const auto out = engine.files().open(*user_->ino(to), O_WRONLY, kOperator);
    ASSERT_TRUE(out) << error_text(out);
    const auto copied = engine.files().copy_range(**in, 0, **out, 0, kImageSize, kOperator);
    ASSERT_TRUE(copied) << error_text(copied);
    must(engine.files().flush(**out));
    must(user_->close_file(to));
  }
  // Reads it as a virtual machine does.
  void boot(const std::string& name, const Ranges& reads) {
    for (const auto& [offset, size] : reads) must(user_->read(name, offset, size));
    must(user_->close_file(name));
  }
  // What is on record for an image; empty if nothing is.
  Ranges profile(const std::string& name) {
    Ranges ranges;
    const auto boot = user_->engine().files().boot_reads(*user_->ino(name));
    EXPECT_TRUE(boot) << error_text(boot);
    if (boot && *boot)
      for (const BootReads::Range& range : (*boot)->ranges) ranges.emplace_back(range.offset, range.size);
    return ranges;
  }
  void wait_for(const std::function<bool()>& condition, const char* what) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  const Ranges boot_ = {{8 * kMiB, kMiB}, {0, 512 << 10}, {4 * kMiB + 5 * kUnit, kUnit}};
  std::unique_ptr<StoreUser> user_;
};

TEST_F(BootTest, WhatTheFirstInstanceReadsIsItsSourcesProfile) {
  copy("fast/disk", "vms/one");
  copy("fast/disk", "vms/two");
  EXPECT_EQ(profile("fast/disk"), Ranges{});
  boot("vms/one", boot_);
  EXPECT_EQ(profile("fast/disk"), boot_);
  EXPECT_EQ(profile("vms/one"), boot_);
  EXPECT_EQ(profile("vms/two"), boot_) << "clones share it";
  boot("vms/two", {{2 * kMiB, 4 * kMiB}});
  EXPECT_EQ(profile("fast/disk"), boot_) << "the first boot counts";
  reopen();
  EXPECT_EQ(profile("vms/two"), boot_);
}

TEST_F(BootTest, TheFirstOfTwoAtOnceCounts) {
  copy("fast/disk", "vms/one");
  copy("fast/disk", "vms/two");
  must(user_->read("vms/two", 2 * kMiB, 4 * kMiB));
  boot("vms/one", boot_);
  must(user_->close_file("vms/two"));
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, TheDiskItselfMayBeBootedFrom) {
  boot("fast/disk", boot_);
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, ReadsAreKeptOnceInWholeUnitsAndJoined) {
  copy("fast/disk", "vms/one");
  boot("vms/one", {{kUnit + 1, 1}, {2 * kUnit, kMiB}, {kUnit, kMiB}, {10 * kMiB - 1, 2}, {kImageSize - 1, kMiB}});
  EXPECT_EQ(profile("fast/disk"), (Ranges{{kUnit, kMiB + kUnit}, {10 * kMiB - kUnit, 2 * kUnit}, {kImageSize - kUnit, kUnit}}));
}

TEST_F(BootTest, ReadingAnImageIsNoBoot) {
  auto& engine = user_->engine();
  auto reader = engine.files().open(*user_->ino("fast/disk"), O_RDONLY, kOperator);
  ASSERT_TRUE(reader);
  std::vector<std::byte> bytes(4 * kMiB);
  ASSERT_TRUE(engine.files().read(**reader, 0, bytes));
  reader->reset();
  EXPECT_EQ(profile("fast/disk"), Ranges{});
}

// Its digest would be void with the next write, and to read all of it would take the disk from the machine.
TEST_F(BootTest, ARunningInstanceIsNotReadThrough) {
  copy("fast/disk", "vms/one");
  must(user_->write("vms/one", 0, "a boot writes early"));
  auto running = user_->engine().files().open(*user_->ino("vms/one"), O_RDWR, kOperator);
  ASSERT_TRUE(running);
  must(user_->close_file("vms/one"));
  std::this_thread::sleep_for(std::chrono::milliseconds(3500));
  EXPECT_EQ(attribute("vms/one", "status"), "normal-uninitialized");
  running->reset();
  wait_for([&] { return attribute("vms/one", "status") == "normal"; }, "it is examined once it is closed");
}

TEST_F(BootTest, ABootIsOverWhenNoMachineHasTheDiskOpen) {
  copy("fast/disk", "vms/one");
  auto reader = user_->engine().files().open(*user_->ino("vms/one"), O_RDONLY, kOperator);
  ASSERT_TRUE(reader);
  must(user_->write("vms/one", 0, "written by the guest"));
  boot("vms/one", {{kMiB, kMiB}, {4 * kMiB, kUnit}});
  EXPECT_THAT(profile("fast/disk"), ElementsAre(std::pair{kMiB, kMiB}, std::pair{4 * kMiB, kUnit}));
  wait_for([&] { return attribute("vms/one", "status") == "normal"; }, "it is examined although a reader has it open");
}

TEST_F(BootTest, ALookAtTheFirstBlocksIsNoBoot) {
  copy("fast/disk", "vms/one");
  boot("vms/one", {{0, kMiB - kUnit}});
  EXPECT_EQ(profile("fast/disk"), Ranges{});
  boot("vms/one", boot_);
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, AnImageThatIsNoDiskByRecordHasNone) {
  must(user_->create("vms/data"));
  must(user_->write("vms/data", 0, test_bytes()));
  must(user_->close_file("vms/data"));
  boot("vms/data", boot_);
  EXPECT_EQ(profile("vms/data"), Ranges{});
}

TEST_F(BootTest, WhatAnInstanceWroteItselfIsNotItsSources) {
  copy("fast/disk", "vms/one");
  must(user_->write("vms/one", 6 * kMiB, std::string(kMiB, 'w')));
  must(user_->read("vms/one", 6 * kMiB, kMiB));
  boot("vms/one", boot_);
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, AReplicaIsGivenACopy) {
  copy("fast/disk", "vms/one");
  boot("vms/one", boot_);
  copy("vms/one", "other/replica");  // through a clone of the image that has it
  EXPECT_EQ(profile("other/replica"), boot_);
  must(user_->settle());
  must(user_->unlink("vms/one"));
  must(user_->unlink("fast/disk"));
  EXPECT_EQ(profile("other/replica"), boot_);
  copy("other/replica", "fast/again");
  EXPECT_EQ(profile("fast/again"), boot_);
  EXPECT_EQ(attribute("fast/again", "fast_create"), "1");
}

TEST_F(BootTest, ADirectorysNewKeyLeavesIt) {
  boot("fast/disk", boot_);
  must(user_->rotate("fast", "two"));
  must(user_->settle());
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, LivesAsLongAsThereIsAClone) {
  copy("fast/disk", "vms/one");
  boot("vms/one", boot_);
  must(user_->unlink("fast/disk"));
  EXPECT_EQ(profile("vms/one"), boot_);
  must(user_->unlink("vms/one"));
  close();
  test::FoundText found;
  const auto report = Engine::check(path("store"), test::test_credential(), {}, found);
  ASSERT_TRUE(report) << error_text(report);
  EXPECT_EQ(found.text, "");
}

TEST_F(BootTest, NewContentHasNone) {
  boot("fast/disk", boot_);
  must(user_->truncate("fast/disk", 0));
  EXPECT_EQ(profile("fast/disk"), Ranges{});
}

TEST_F(BootTest, WhenItIsClearedTheNextBootIsRecorded) {
  copy("fast/disk", "vms/one");
  boot("vms/one", {{0, kMiB}});
  must(user_->engine().files().clear_boot_profile(*user_->ino("vms/one"), kOperator));
  EXPECT_EQ(profile("fast/disk"), Ranges{});
  const auto again = user_->engine().files().clear_boot_profile(*user_->ino("vms/one"), kOperator);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::no_attribute);
  boot("vms/one", boot_);
  EXPECT_EQ(profile("fast/disk"), boot_);
}

TEST_F(BootTest, OnlyTheOwnerOfTheSourceClearsIt) {
  constexpr uid_t kTenant = 1000;
  AttributeChange given;
  given.uid = kTenant;
  copy("fast/disk", "vms/one");
  must(user_->change("vms/one", given));
  boot("vms/one", boot_);
  const auto cleared = user_->engine().files().clear_boot_profile(*user_->ino("vms/one"), Caller{kTenant, kTenant});
  ASSERT_FALSE(cleared);
  EXPECT_EQ(cleared.error().code, Errc::not_permitted);
  EXPECT_THAT(cleared.error().message, ::testing::HasSubstr("/fast/disk"));
  must(user_->change("fast/disk", given));
  must(user_->engine().files().clear_boot_profile(*user_->ino("vms/one"), Caller{kTenant, kTenant}));
}

// Block 0 of the source is damaged, so that what comes in the image's order gets nowhere.
TEST_F(BootTest, AReplicasFirstBlocksAreThoseOfItsProfile) {
  const Ranges reads = {{8 * kMiB, kMiB}, {4 * kMiB + 5 * kUnit, kUnit}};
  boot("fast/disk", reads);
  must(user_->settle());
  const auto info = user_->engine().reports().info(*user_->ino("fast/disk"));
  ASSERT_TRUE(info);
  const std::uint64_t layer = info->layers.front().id.value();
  close();
  damage_first_block_of(layer);
  reopen();
  copy("fast/disk", "other/replica");
  wait_for([&] { return attribute("other/replica", "status") == "error"; }, "the damaged block is met");
  EXPECT_EQ(attribute("other/replica", "stored"), std::to_string(kMiB + kUnit));
}

// Nothing is filled in the background: what is stored was prefetched, or read.
TEST_F(BootTest, AnInstanceIsPrefetchedWhatItsProfileNames) {
  boot("fast/disk", boot_);
  must(user_->settle());
  reopen(0);
  copy("fast/disk", "other/replica");
  EXPECT_EQ(attribute("other/replica", "stored"), "0");
  must(user_->read("other/replica", 0, 1));  // opens it
  std::uint64_t profile_bytes = 0;
  for (const auto& range : boot_) profile_bytes += range.second;
  wait_for([&] { return attribute("other/replica", "stored") == std::to_string(profile_bytes); }, "the profile is prefetched");
}

TEST_F(BootTest, ReadersArePrefetchedNothing) {
  boot("fast/disk", boot_);
  must(user_->settle());
  reopen(0);
  copy("fast/disk", "other/replica");
  const auto reader = user_->engine().files().open(*user_->ino("other/replica"), O_RDONLY, kOperator);
  ASSERT_TRUE(reader);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(attribute("other/replica", "stored"), "0");
}

// By path, as truncate(2) does. Many times, since the prefetcher stops when the image is closed.
TEST_F(BootTest, TruncatingIsNoBoot) {
  boot("fast/disk", boot_);
  must(user_->settle());
  reopen(0);
  copy("fast/disk", "other/replica");
  for (int i = 0; i < 300; ++i) {
    AttributeChange change;
    change.size = kImageSize + static_cast<unsigned>(i % 2);
    ASSERT_TRUE(user_->engine().names().setattr(*user_->ino("other/replica"), change, kOperator));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(attribute("other/replica", "stored"), "0");
}

}  // namespace
}  // namespace rekeyfs
