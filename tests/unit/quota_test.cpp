// Quotas of directories: what counts, who pays for shared blocks, and that no way of adding gets past a limit.
#include <fcntl.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include <gmock/gmock.h>

#include "engine/make_engine.h"
#include "engine/namespace/tree.h"
#include "engine/quota/quota_text.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

const Caller kOwner{0, 0, true};
const Caller kTenant{64001, 64001};
constexpr std::uint64_t kBlock = 16384;
constexpr std::uint64_t kMiB = 1u << 20;
constexpr std::string_view kQuota = "user.rekeyfs.quota";

class QuotaTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    open();
    for (const char* key : {"a", "b"}) ASSERT_TRUE(engine_->keys().create(key, kOwner));
    public_ = make_folder(kRootIno, "public");
    tenant_ = make_folder(kRootIno, "tenant");
  }
  void TearDown() override {
    if (engine_) {
      EXPECT_TRUE(engine_->close());
    }
  }

  void open(unsigned workers = 0) {
    OpenOptions options;
    options.filler_workers = workers;
    auto store = store::Store::open(path("store"), test::test_credential(), false);
    ASSERT_TRUE(store) << test::error_text(store);
    store_ = store->get();
    catalog_ = &store_->catalog();
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }
  void reopen(unsigned workers = 0) {
    ASSERT_TRUE(engine_->close());
    engine_.reset();
    open(workers);
  }
  Ino make_folder(Ino parent, const std::string& name) {
    const auto made = engine_->names().make_directory(parent, name, 0777, kOwner);
    EXPECT_TRUE(made) << test::error_text(made);
    return made ? made->ino : Ino{};
  }
  void set_key(Ino folder, const std::string& key) {
    ASSERT_TRUE(engine_->names().setxattr(folder, "user.rekeyfs.key", key, XattrMode::either, kOwner));
  }
  void set_quota(Ino folder, const std::string& quota) {
    const Status set = engine_->names().setxattr(folder, kQuota, quota, XattrMode::either, kOwner);
    ASSERT_TRUE(set) << test::error_text(set.error());
  }
  std::uint64_t bytes_used(Ino folder) {
    const auto quota = engine_->reports().quota(folder);
    EXPECT_TRUE(quota && *quota);
    return (*quota)->bytes;
  }
  std::uint64_t images_used(Ino folder) {
    const auto quota = engine_->reports().quota(folder);
    EXPECT_TRUE(quota && *quota);
    return (*quota)->images;
  }

  std::string random_bytes(std::uint64_t size) {
    std::string content(size, '\0');
    for (std::size_t at = 0; at + 8 <= content.size(); at += 8) {
      const std::uint64_t word = random_() | 1;
      std::memcpy(&content[at], &word, 8);
    }
    return content;
  }
  Result<OpenFilePtr> open_new(Ino folder, const std::string& name) {
    auto made = engine_->files().create(folder, name, 0600, O_RDWR, kOwner);
    if (!made) return fail(made.error());
    return std::move(made->file);
  }
  Status write(OpenFile& file, std::uint64_t offset, std::uint64_t size) {
    constexpr std::uint64_t kPiece = kMiB;
    for (std::uint64_t done = 0; done < size; done += kPiece) {
      const std::string bytes = random_bytes(std::min(kPiece, size - done));
      RK_TRY(engine_->files().write(file, offset + done, as_bytes(bytes)));
    }
    return {};
  }
  Status add(Ino folder, const std::string& name, std::uint64_t size) {
    RK_TRY_ASSIGN(const OpenFilePtr file, open_new(folder, name));
    RK_TRY(write(*file, 0, size));
    return engine_->files().flush(*file);
  }
  Status rewrite(Ino image, std::uint64_t offset, std::uint64_t size) {
    RK_TRY_ASSIGN(const OpenFilePtr file, engine_->files().open(image, O_RDWR, kOwner));
    return write(*file, offset, size);
  }
  Status copy(Ino from, Ino folder, const std::string& name, std::uint64_t size = ~std::uint64_t{0}) {
    RK_TRY_ASSIGN(const OpenFilePtr in, engine_->files().open(from, O_RDONLY, kOwner));
    RK_TRY_ASSIGN(const OpenFilePtr out, open_new(folder, name));
    const auto copied = engine_->files().copy_range(*in, 0, *out, 0, size, kOwner);
    const Status flushed = engine_->files().flush(*out);
    return copied ? flushed : fail(copied.error());
  }
  Ino find(Ino folder, const std::string& name) {
    const auto found = engine_->names().lookup(folder, name);
    return found ? found->ino : Ino{};
  }
  Status move(Ino from, const std::string& name, Ino to, RenameMode how = RenameMode::replace) {
    return engine_->names().rename(from, name, to, name, how, kOwner);
  }
  Status remove(Ino folder, const std::string& name) { return engine_->names().unlink(folder, name); }

  static void expect_refused(const Status& status) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::over_quota) << test::error_text(status.error());
    EXPECT_THAT(status.error().message, HasSubstr("/tenant"));
  }
  static void expect_done(const Status& status) { EXPECT_TRUE(status) << test::error_text(status.error()); }

  std::mt19937_64 random_{7};
  store::Store* store_ = nullptr;
  catalog::Catalog* catalog_ = nullptr;
  std::unique_ptr<Engine> engine_;
  Ino public_, tenant_;
};

TEST_F(QuotaTest, TheValueReadsBackAsItWasSet) {
  for (const char* value : {"bytes=10G,images=500", "bytes=1T", "images=1", "bytes=1023", "bytes=1536K"}) {
    set_quota(tenant_, value);
    EXPECT_EQ(*engine_->names().getxattr(tenant_, kQuota), value);
  }
  set_quota(tenant_, "images=500,bytes=10240M");
  EXPECT_EQ(*engine_->names().getxattr(tenant_, kQuota), "bytes=10G,images=500");
  EXPECT_EQ(*engine_->names().getxattr(tenant_, "user.rekeyfs.usage"), "bytes=0,images=0");
  for (const char* value : {"10G", "bytes=", "bytes=0", "bytes=-1", "bytes=1GB", "bytes=1.5G", "images=1K", "bytes=1G,", "bytes=1G,bytes=2G",
                            "bytes=99999999P", "bytes=1G,images=0", "bytes=1G images=2", "files=3"}) {
    const Status set = engine_->names().setxattr(tenant_, kQuota, value, XattrMode::either, kOwner);
    ASSERT_FALSE(set) << value;
    EXPECT_EQ(set.error().code, Errc::invalid) << value;
  }
  EXPECT_EQ(*engine_->names().getxattr(tenant_, kQuota), "bytes=10G,images=500");
  ASSERT_TRUE(engine_->names().removexattr(tenant_, kQuota, kOwner));
  EXPECT_EQ(engine_->names().getxattr(tenant_, kQuota).error().code, Errc::no_attribute);
  EXPECT_FALSE(*engine_->reports().quota(tenant_));
}

TEST_F(QuotaTest, OnlyOperatorsSetIt) {
  AttributeChange owned;
  owned.uid = kTenant.uid;
  ASSERT_TRUE(engine_->names().setattr(tenant_, owned, kOwner));
  EXPECT_EQ(engine_->names().setxattr(tenant_, kQuota, "bytes=1G", XattrMode::either, kTenant).error().code, Errc::not_permitted);
  set_quota(tenant_, "images=1");
  EXPECT_EQ(engine_->names().setxattr(tenant_, kQuota, "images=2", XattrMode::either, kTenant).error().code, Errc::not_permitted);
  EXPECT_EQ(engine_->names().removexattr(tenant_, kQuota, kTenant).error().code, Errc::not_permitted);
  EXPECT_EQ(*engine_->names().getxattr(tenant_, kQuota), "images=1");
}

TEST_F(QuotaTest, ProgramsThatDoNotEnforceItMayNotWriteToTheStore) {
  EXPECT_FALSE(store::has(store_->features(), store::Feature::rules));
  set_quota(tenant_, "bytes=1G");
  EXPECT_TRUE(store::has(store_->features(), store::Feature::rules));
}

TEST_F(QuotaTest, TheAuditLogHasEachChange) {
  set_quota(tenant_, "bytes=1G");
  set_quota(tenant_, "bytes=1G");  // no change
  set_quota(tenant_, "images=5");
  ASSERT_TRUE(engine_->names().removexattr(tenant_, kQuota, kOwner));
  EventQuery query;
  query.kind = EventKind::quota_changed;
  const auto events = engine_->reports().events(query);
  ASSERT_TRUE(events);
  ASSERT_EQ(events->size(), 3u);
  EXPECT_EQ((*events)[1].path, "/tenant");
  EXPECT_THAT((*events)[1].text, testing::AllOf(HasSubstr("bytes=1G"), HasSubstr("images=5")));
}

TEST_F(QuotaTest, ASubdirectoryDoesNotInheritIt) {
  set_quota(tenant_, "images=5");
  EXPECT_FALSE(*engine_->reports().quota(make_folder(tenant_, "below")));
}

TEST_F(QuotaTest, EveryNameCountsAsAnImage) {
  set_quota(tenant_, "images=4");
  const Ino below = make_folder(tenant_, "below");
  expect_done(add(below, "image", 1));
  ASSERT_TRUE(engine_->names().make_symlink(tenant_, "link", "target", kOwner));
  ASSERT_TRUE(engine_->names().link(find(below, "image"), tenant_, "again"));
  EXPECT_EQ(images_used(tenant_), 4u);
  expect_refused(add(below, "more", 0));
  EXPECT_FALSE(find(below, "more"));
  EXPECT_EQ(engine_->names().make_directory(below, "more", 0777, kOwner).error().code, Errc::over_quota);
  EXPECT_EQ(engine_->names().make_symlink(below, "more", "x", kOwner).error().code, Errc::over_quota);
  EXPECT_EQ(engine_->names().link(find(below, "image"), below, "more").error().code, Errc::over_quota);
  expect_done(remove(tenant_, "link"));
  expect_done(add(below, "more", 0));
}

TEST_F(QuotaTest, BytesAreRefusedOnlyAboveTheLimit) {
  set_quota(tenant_, "bytes=1M");
  expect_done(add(tenant_, "image", kMiB));
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  expect_refused(add(tenant_, "more", 1));
  const Ino image = find(tenant_, "image");
  for (int round = 0; round < 5; ++round) expect_done(rewrite(image, 0, kMiB));  // adds nothing
  expect_refused(rewrite(image, kMiB, 1));
  EXPECT_EQ(engine_->names().getattr(image)->size, kMiB);
  expect_done(remove(tenant_, "more"));
  AttributeChange shorter;
  shorter.size = kMiB - kBlock;
  ASSERT_TRUE(engine_->names().setattr(image, shorter, kOwner));
  expect_done(add(tenant_, "more", kBlock));
  expect_done(remove(tenant_, "image"));
  expect_done(add(tenant_, "again", kMiB - kBlock));
}

TEST_F(QuotaTest, BelowUsageOnlyAddingIsRefused) {
  expect_done(add(tenant_, "one", kMiB));
  expect_done(add(tenant_, "two", kMiB));
  set_quota(tenant_, "bytes=512K,images=1");
  EXPECT_EQ(bytes_used(tenant_), 2 * kMiB);
  expect_refused(add(tenant_, "three", 0));
  const Ino one = find(tenant_, "one");
  expect_refused(rewrite(one, kMiB, kBlock));
  expect_done(rewrite(one, 0, kMiB));
  std::string read(kMiB, '\0');
  const auto file = engine_->files().open(one, O_RDONLY, kOwner);
  ASSERT_TRUE(file);
  EXPECT_EQ(*engine_->files().read(**file, 0, ByteSpan(reinterpret_cast<std::byte*>(read.data()), read.size())), kMiB);
  expect_done(move(tenant_, "two", public_));
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  const auto space = engine_->reports().space_at(one);
  EXPECT_EQ(space->total, 512u << 10);
  EXPECT_EQ(space->available, 0u);
  EXPECT_EQ(space->nodes_left, 0u);
}

TEST_F(QuotaTest, AllQuotasAboveCount) {
  const Ino inner = make_folder(tenant_, "inner");
  set_quota(kRootIno, "bytes=3M");
  set_quota(tenant_, "bytes=2M");
  set_quota(inner, "bytes=1M");
  expect_done(add(inner, "image", kMiB));
  EXPECT_EQ(add(inner, "more", 1).error().message.find("/tenant/inner") == std::string::npos, false);
  expect_done(add(tenant_, "image", kMiB));
  expect_refused(add(tenant_, "more", 1));
  expect_done(add(public_, "image", kMiB));
  EXPECT_EQ(add(public_, "more", 1).error().code, Errc::over_quota);
  EXPECT_EQ(bytes_used(kRootIno), 3 * kMiB);
  ASSERT_TRUE(engine_->names().removexattr(kRootIno, kQuota, kOwner));
  expect_done(rewrite(find(public_, "more"), 0, kMiB));
}

TEST_F(QuotaTest, ACloneCountsWhatIsWrittenToIt) {
  expect_done(add(public_, "base", kMiB));
  set_quota(tenant_, "bytes=64K");
  expect_done(copy(find(public_, "base"), tenant_, "clone"));
  EXPECT_EQ(bytes_used(tenant_), 0u);
  const Ino clone = find(tenant_, "clone");
  expect_done(rewrite(clone, 0, 4 * kBlock));
  EXPECT_EQ(bytes_used(tenant_), 4 * kBlock);
  expect_refused(rewrite(clone, 4 * kBlock, kBlock));
}

TEST_F(QuotaTest, ClonesPayForABaseWithoutAnOwnerOnce) {
  set_quota(public_, "bytes=1G");
  set_quota(tenant_, "bytes=1G");
  expect_done(add(public_, "base", kMiB));
  for (const char* name : {"one", "two"}) expect_done(copy(find(public_, "base"), tenant_, name));
  expect_done(rewrite(find(tenant_, "two"), 0, kBlock));
  EXPECT_EQ(bytes_used(tenant_), kBlock);
  EXPECT_EQ(bytes_used(public_), kMiB);
  expect_done(remove(public_, "base"));
  EXPECT_EQ(bytes_used(public_), 0u);
  EXPECT_EQ(bytes_used(tenant_), kMiB + kBlock);
  expect_done(remove(tenant_, "one"));
  EXPECT_EQ(bytes_used(tenant_), kMiB + kBlock);
  expect_done(remove(tenant_, "two"));
  EXPECT_EQ(bytes_used(tenant_), 0u);
}

TEST_F(QuotaTest, CloneAndDeleteDoesNotGetPastIt) {
  set_quota(tenant_, "bytes=3M");
  int made = 0;
  for (; made < 10; ++made) {
    const std::string name = std::to_string(made);
    if (!add(tenant_, name, kMiB)) break;
    expect_done(copy(find(tenant_, name), tenant_, "clone" + name));
    expect_done(remove(tenant_, name));
  }
  EXPECT_EQ(made, 3);
  EXPECT_LE(bytes_used(tenant_), 3 * kMiB);
}

// A base outside of the quota that loses its owner counts a moment later, although nothing was charged for it.
TEST_F(QuotaTest, ABaseThatLosesItsOwnerElsewhereIsNoticed) {
  expect_done(add(public_, "base", 2 * kMiB));
  set_quota(tenant_, "bytes=2M");
  expect_done(copy(find(public_, "base"), tenant_, "clone"));
  expect_done(add(tenant_, "image", kBlock));
  expect_done(remove(public_, "base"));
  Status added;
  for (int tries = 0; tries < 100 && added; ++tries) {  // together less than the limit
    std::this_thread::sleep_for(100ms);
    added = add(tenant_, "more", kBlock);
    static_cast<void>(remove(tenant_, "more"));
  }
  expect_refused(added);
}

TEST_F(QuotaTest, AReplicaCountsInFullFromTheStart) {
  set_key(tenant_, "a");
  set_quota(tenant_, "bytes=3M");
  expect_done(add(public_, "source", 2 * kMiB));
  const Ino source = find(public_, "source");
  expect_done(copy(source, tenant_, "replica"));
  EXPECT_GE(bytes_used(tenant_), 2 * kMiB);
  EXPECT_LE(bytes_used(tenant_), 2 * kMiB + 64 * 1024);
  expect_refused(copy(source, tenant_, "more"));
  EXPECT_FALSE(find(tenant_, "more"));
  ASSERT_FALSE(engine_->reports().refusals().empty());
  EXPECT_EQ(engine_->reports().refusals()[0].code, Errc::over_quota);
  const auto in = engine_->files().open(source, O_RDONLY, kOwner);
  auto plan = engine_->files().plan_replication(**in, tenant_, {}, kOwner);
  ASSERT_TRUE(plan) << test::error_text(plan);
  ASSERT_EQ(plan->refusals.size(), 1u);
  EXPECT_EQ(plan->refusals[0].code, Errc::over_quota);
  EXPECT_TRUE(engine_->files().plan_replication(**in, public_, {}, kOwner)->refusals.empty());
  expect_done(remove(tenant_, "replica"));
  expect_done(copy(source, tenant_, "more"));
  EXPECT_TRUE(engine_->files().plan_replication(**in, tenant_, {}, kOwner)->refusals.size() == 1);
}

// The filler is never refused, and what it has stored is what was counted.
TEST_F(QuotaTest, AReplicaIsCompletedWhereItsQuotaWasLowered) {
  set_key(tenant_, "a");
  set_quota(tenant_, "bytes=3M");
  expect_done(add(public_, "source", 2 * kMiB));
  expect_done(copy(find(public_, "source"), tenant_, "replica"));
  set_quota(tenant_, "bytes=1M");
  reopen(2);
  for (int tries = 0; tries < 600 && !engine_->reports().replications(kRootIno)->empty(); ++tries) std::this_thread::sleep_for(20ms);
  EXPECT_TRUE(engine_->reports().replications(kRootIno)->empty());
  EXPECT_EQ(bytes_used(tenant_), 2 * kMiB);
}

TEST_F(QuotaTest, APartOfASourceCountsAsThatPart) {
  set_key(tenant_, "a");
  set_quota(tenant_, "bytes=2M");
  expect_done(add(public_, "source", 8 * kMiB));
  expect_done(copy(find(public_, "source"), tenant_, "part", kMiB));
  EXPECT_LE(bytes_used(tenant_), kMiB + 64 * 1024);
  // The source's layer is kept for the part alone.
  expect_done(remove(public_, "source"));
  EXPECT_GE(bytes_used(tenant_), 8 * kMiB);
}

TEST_F(QuotaTest, ReplacingAnImageNeedsRoomForTheDifference) {
  set_key(tenant_, "a");
  set_quota(tenant_, "bytes=3M");
  expect_done(add(public_, "source", 2 * kMiB));
  const auto in = engine_->files().open(find(public_, "source"), O_RDONLY, kOwner);
  expect_done(add(tenant_, "image", 2 * kMiB));
  const auto out = engine_->files().open(find(tenant_, "image"), O_RDWR | O_TRUNC, kOwner);
  ASSERT_TRUE(in && out);
  const auto copied = engine_->files().copy_range(**in, 0, **out, 0, 2 * kMiB, kOwner);
  EXPECT_TRUE(copied) << test::error_text(copied);
  EXPECT_TRUE(engine_->files().flush(**out));
  EXPECT_LE(bytes_used(tenant_), 2 * kMiB + 64 * 1024);
}

TEST_F(QuotaTest, ARotationIsNotRefusedAndCountsOnce) {
  set_key(tenant_, "a");
  expect_done(add(tenant_, "image", 2 * kMiB));
  set_quota(tenant_, "bytes=2M");
  ASSERT_TRUE(engine_->keys().rotate_directory(tenant_, "b", kOwner));
  EXPECT_GE(bytes_used(tenant_), 2 * kMiB);
  EXPECT_LE(bytes_used(tenant_), 2 * kMiB + 64 * 1024);
}

TEST_F(QuotaTest, WhatMovesInMustFit) {
  expect_done(add(public_, "image", kMiB));
  const Ino folder = make_folder(public_, "folder");
  expect_done(add(make_folder(folder, "below"), "image", kMiB));
  set_quota(tenant_, "bytes=1M,images=10");
  expect_done(move(public_, "image", tenant_));
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  expect_refused(move(public_, "folder", tenant_));
  EXPECT_TRUE(find(public_, "folder"));
  expect_done(move(tenant_, "image", public_));
  expect_done(move(public_, "folder", tenant_));
  EXPECT_EQ(images_used(tenant_), 3u);
  expect_done(engine_->names().rename(tenant_, "folder", tenant_, "renamed", RenameMode::no_replace, kOwner));  // stays below
  expect_refused(move(public_, "image", tenant_));
  // An open image counts where it is now.
  const Ino moved = find(find(find(tenant_, "renamed") ? find(tenant_, "renamed") : Ino{}, "below"), "image");
  const auto file = engine_->files().open(moved, O_RDWR, kOwner);
  ASSERT_TRUE(file);
  expect_refused(write(**file, kMiB, kBlock));
  expect_done(engine_->names().rename(tenant_, "renamed", public_, "folder", RenameMode::no_replace, kOwner));
  expect_done(write(**file, kMiB, kBlock));
  expect_done(engine_->names().rename(public_, "folder", public_, "again", RenameMode::no_replace, kOwner));
  expect_refused(engine_->names().rename(public_, "again", tenant_, "again", RenameMode::no_replace, kOwner));
}

TEST_F(QuotaTest, AnExchangeMustFitOnBothSides) {
  expect_done(add(public_, "image", 2 * kMiB));
  expect_done(add(tenant_, "image", kBlock));
  set_quota(tenant_, "bytes=1M");
  expect_refused(move(public_, "image", tenant_, RenameMode::exchange));
  expect_refused(move(tenant_, "image", public_, RenameMode::exchange));
  set_quota(tenant_, "bytes=3M");
  expect_done(move(public_, "image", tenant_, RenameMode::exchange));
  EXPECT_EQ(bytes_used(tenant_), 2 * kMiB);
}

TEST_F(QuotaTest, AHardLinkCountsWhereverItHasAName) {
  expect_done(add(public_, "image", kMiB));
  const Ino image = find(public_, "image");
  set_quota(tenant_, "bytes=2M");
  ASSERT_TRUE(engine_->names().link(image, tenant_, "link"));
  ASSERT_TRUE(engine_->names().link(image, tenant_, "second"));  // another name, not another megabyte
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  set_quota(tenant_, "bytes=1M");
  expect_refused(add(tenant_, "more", 1));
  expect_done(remove(public_, "image"));
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  expect_refused(rewrite(image, kMiB, kBlock));
  expect_done(remove(tenant_, "link"));
  expect_done(remove(tenant_, "second"));
  expect_done(add(public_, "other", 2 * kMiB));
  EXPECT_EQ(engine_->names().link(find(public_, "other"), tenant_, "link").error().code, Errc::over_quota);
}

TEST_F(QuotaTest, PromisedSpaceCounts) {
  set_quota(tenant_, "bytes=2M");
  {
    const auto file = open_new(tenant_, "image");
    ASSERT_TRUE(file);
    expect_done(engine_->files().allocate(**file, Allocate::reserve, false, 0, 2 * kMiB));
    expect_refused(add(tenant_, "more", 1));
    expect_refused(engine_->files().allocate(**file, Allocate::reserve, false, 2 * kMiB, kBlock));
  }
  EXPECT_EQ(bytes_used(tenant_), 2 * kMiB);
  reopen();
  EXPECT_EQ(bytes_used(tenant_), 2 * kMiB);
  const Ino image = find(tenant_, "image");
  expect_done(rewrite(image, 0, 2 * kMiB));  // the promise is kept
  expect_refused(rewrite(image, 2 * kMiB, kBlock));
}

TEST_F(QuotaTest, ADeletedImageCountsUntilItIsClosed) {
  set_quota(tenant_, "bytes=2M");
  const Ino below = make_folder(tenant_, "below");
  auto file = open_new(below, "image");
  ASSERT_TRUE(file);
  expect_done(write(**file, 0, kMiB));
  expect_done(remove(below, "image"));
  expect_done(engine_->names().remove_directory(tenant_, "below"));
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  expect_done(write(**file, kMiB, kMiB));
  expect_refused(write(**file, 2 * kMiB, kBlock));
  expect_refused(add(tenant_, "more", 1));
  file->reset();
  EXPECT_EQ(bytes_used(tenant_), 0u);
}

TEST_F(QuotaTest, ExtendedAttributesCount) {
  set_quota(tenant_, "bytes=128K");
  expect_done(add(tenant_, "image", kBlock));
  const Ino image = find(tenant_, "image");
  const auto set = [&](Ino ino, const std::string& name) {
    return engine_->names().setxattr(ino, name, std::string(40000, 'x'), XattrMode::either, kOwner);
  };
  expect_done(set(image, "user.one"));
  expect_done(set(tenant_, "user.one"));
  EXPECT_GE(bytes_used(tenant_), kBlock + 80000);
  expect_refused(set(image, "user.two"));
  expect_refused(set(tenant_, "user.two"));
  expect_done(engine_->names().removexattr(image, "user.one", kOwner));
  expect_done(set(tenant_, "user.two"));
}

TEST_F(QuotaTest, WritersInParallelDoNotGetPastIt) {
  constexpr std::uint64_t kLimit = 4 * kMiB;
  set_quota(tenant_, "bytes=4M");
  std::atomic<std::uint64_t> written{0};
  const std::string bytes = random_bytes(kBlock);
  std::vector<std::thread> writers;
  for (int number = 0; number < 4; ++number) {
    writers.emplace_back([&, number] {
      const auto file = open_new(tenant_, std::to_string(number));
      if (!file) return;
      for (std::uint64_t block = 0; block < 128; ++block)
        if (engine_->files().write(**file, block * kBlock, as_bytes(bytes))) written += kBlock;
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(written.load(), kLimit);
  EXPECT_EQ(bytes_used(tenant_), kLimit);
}

TEST_F(QuotaTest, IsFoundAgainAfterAKill) {
  set_quota(tenant_, "bytes=1M,images=5");
  expect_done(add(tenant_, "image", kMiB));
  test::copy_as_killed(path("store"), path("killed"));
  ASSERT_TRUE(engine_->close());
  std::filesystem::remove_all(path("store"));
  std::filesystem::rename(path("killed"), path("store"));
  open();
  EXPECT_EQ(bytes_used(tenant_), kMiB);
  EXPECT_EQ(images_used(tenant_), 1u);
  expect_refused(add(tenant_, "more", 1));
}

TEST_F(QuotaTest, ACheckListsTheDirectoriesThatHaveOne) {
  const Ino gone = make_folder(kRootIno, "gone");
  set_quota(gone, "images=1");
  set_quota(tenant_, "images=1");
  expect_done(engine_->names().remove_directory(kRootIno, "gone"));
  const auto check = [&](bool repair) {
    test::FoundText found;
    CheckOptions options;
    options.repair = repair;
    EXPECT_TRUE(Engine::check(path("store"), test::test_credential(), options, found));
    return found.text;
  };
  ASSERT_TRUE(engine_->close());
  engine_.reset();
  EXPECT_EQ(check(false), "");
  open();
  {
    catalog::WriteTxn txn(*catalog_);
    txn.erase(catalog::make_key(catalog::Table::quota, tenant_.value()));
    txn.put(catalog::make_key(catalog::Table::quota, public_.value()), "");
    ASSERT_TRUE(txn.commit());
  }
  ASSERT_TRUE(engine_->close());
  engine_.reset();
  const std::string found = check(true);
  EXPECT_THAT(found, HasSubstr("the directory's quota is not listed"));
  EXPECT_THAT(found, HasSubstr("a quota is listed that the directory does not have"));
  EXPECT_EQ(check(false), "");
  open();
  expect_done(add(tenant_, "image", 0));
  expect_refused(add(tenant_, "more", 0));
}

}  // namespace
}  // namespace rekeyfs
