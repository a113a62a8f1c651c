// Several open handles of one image: each keeps its guarantees, whatever happens to the others.
#include <fcntl.h>

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

#include "engine/make_engine.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using test::FaultyStorage;

class OpenFileTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    test::TempDirectory::SetUp();
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    auto storage = std::make_unique<FaultyStorage>(path("store"));
    storage_ = storage.get();
    auto store = store::Store::open(path("store"), test::test_credential(), false, std::move(storage));
    ASSERT_TRUE(store) << test::error_text(store);
    OpenOptions options;
    options.filler_workers = 0;
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }
  void TearDown() override {
    if (engine_) {
      EXPECT_TRUE(engine_->close());
    }
    engine_.reset();
    test::TempDirectory::TearDown();
  }

  OpenFilePtr create(std::string_view name, const std::string& content, Ino parent = kRootIno) {
    auto made = engine_->files().create(parent, name, 0600, O_RDWR, user_);
    EXPECT_TRUE(made) << test::error_text(made);
    if (!content.empty()) {
      EXPECT_TRUE(engine_->files().write(*made->file, 0, as_bytes(content)));
    }
    return std::move(made->file);
  }
  Ino ino(std::string_view name) {
    const auto found = engine_->names().resolve(name);
    EXPECT_TRUE(found) << name;
    return found.value_or(Ino{});
  }
  OpenFilePtr open(std::string_view name, int flags) {
    auto file = engine_->files().open(ino(name), flags, user_);
    EXPECT_TRUE(file) << test::error_text(file);
    return file ? std::move(*file) : nullptr;
  }
  void close(OpenFilePtr file) { EXPECT_TRUE(engine_->files().flush(*file)); }
  std::string content(std::string_view name) {
    const OpenFilePtr file = open(name, O_RDONLY);
    std::string bytes(1 << 20, '?');
    const auto got = engine_->files().read(*file, 0, {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
    EXPECT_TRUE(got) << test::error_text(got);
    bytes.resize(got.value_or(0));
    return bytes;
  }
  // An image that no copy may be made of.
  OpenFilePtr create_unreplicable(std::string_view name) {
    OpenFilePtr file = create(name, std::string(1000, 's'));
    EXPECT_TRUE(engine_->names().setxattr(ino(name), "user.rekeyfs.type", "full-ecs", XattrMode::either, user_));
    return file;
  }
  Errc refused_copy(OpenFile& in, OpenFile& out) {
    const auto copied = engine_->files().copy_range(in, 0, out, 0, 1 << 20, user_);
    return copied ? Errc::io : copied.error().code;
  }

  const Caller user_{0, 0};
  FaultyStorage* storage_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

TEST_F(OpenFileTest, ARefusalTakesBackItsOwnTruncationOnly) {
  close(create("target", std::string(60'000, 'o')));
  const OpenFilePtr source = create_unreplicable("source");
  OpenFilePtr writer = open("target", O_WRONLY | O_TRUNC);
  OpenFilePtr copier = open("target", O_WRONLY | O_TRUNC);
  EXPECT_EQ(refused_copy(*source, *copier), Errc::wrong_medium);
  EXPECT_EQ(engine_->names().getattr(ino("target"))->size, 0u) << "the writer's truncation still holds";
  ASSERT_TRUE(engine_->files().write(*writer, 0, as_bytes(std::string(100, 'n'))));
  close(std::move(writer));
  close(std::move(copier));
  EXPECT_EQ(content("target"), std::string(100, 'n'));
}

TEST_F(OpenFileTest, ARefusalRestoresWhatNobodyElseTruncated) {
  close(create("target", std::string(60'000, 'o')));
  const OpenFilePtr source = create_unreplicable("source");
  OpenFilePtr copier = open("target", O_WRONLY | O_TRUNC);
  EXPECT_EQ(content("target"), "");
  EXPECT_EQ(refused_copy(*source, *copier), Errc::wrong_medium);
  close(std::move(copier));
  EXPECT_EQ(content("target"), std::string(60'000, 'o'));
}

TEST_F(OpenFileTest, AHandleThatIsRefusedAfterTheTruncationTookPlaceRestoresNothing) {
  close(create("target", std::string(60'000, 'o')));
  const OpenFilePtr source = create_unreplicable("source");
  OpenFilePtr writer = open("target", O_WRONLY | O_TRUNC);
  OpenFilePtr copier = open("target", O_WRONLY | O_TRUNC);
  ASSERT_TRUE(engine_->files().write(*writer, 0, as_bytes(std::string(100, 'n'))));
  EXPECT_EQ(refused_copy(*source, *copier), Errc::wrong_medium);
  EXPECT_EQ(content("target"), std::string(100, 'n'));
}

TEST_F(OpenFileTest, ATruncationGoesWithAHandleThatNeverFlushes) {
  close(create("target", std::string(60'000, 'o')));
  open("target", O_WRONLY | O_TRUNC).reset();
  EXPECT_EQ(content("target"), std::string(60'000, 'o'));
}

// The format of the source is probed without a lock. Meanwhile another handle writes to the target.
TEST_F(OpenFileTest, AWriteWhileTheSourceIsProbedIsKept) {
  const auto fast = engine_->names().make_directory(kRootIno, "fast", 0755, user_);
  ASSERT_TRUE(fast);
  ASSERT_TRUE(engine_->names().setxattr(fast->ino, "user.rekeyfs.fast_create", "1", XattrMode::either, user_));
  close(create("source", std::string(100'000, 's')));
  const OpenFilePtr source = open("source", O_RDONLY);
  OpenFilePtr copier = create("disk", "", fast->ino);
  OpenFilePtr writer = open("fast/disk", O_RDWR);
  std::atomic<bool> written{false};
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& file) -> Status {
    if (operation != FaultyStorage::Operation::read || file.find(".data") == std::string::npos || written.exchange(true)) return {};
    EXPECT_TRUE(engine_->files().write(*writer, 200'000, as_bytes("kept")));
    return {};
  });
  const auto copied = engine_->files().copy_range(*source, 0, *copier, 0, 1 << 20, user_);
  storage_->set_hook(nullptr);
  ASSERT_TRUE(copied) << test::error_text(copied);
  ASSERT_TRUE(written);
  close(std::move(copier));
  const std::string all = content("fast/disk");
  ASSERT_EQ(all.size(), 200'004u);
  EXPECT_EQ(all.substr(0, 100'000), std::string(100'000, 's'));
  EXPECT_EQ(all.substr(200'000), "kept");
}

// The target of a refused copy goes at its FLUSH; a file that takes its name in that moment does not.
TEST_F(OpenFileTest, ARefusedTargetsNameIsNotTakenFromAnotherFile) {
  const OpenFilePtr source = create_unreplicable("source");
  for (int round = 0; round < 300 && !HasFailure(); ++round) {
    const std::string victim = "victim-" + std::to_string(round), target = "target-" + std::to_string(round);
    close(create(victim, "precious"));
    OpenFilePtr copier = create(target, "");
    EXPECT_EQ(refused_copy(*source, *copier), Errc::wrong_medium);
    std::atomic<bool> go{false};
    std::thread renamer([&] {
      while (!go) std::this_thread::yield();
      EXPECT_TRUE(engine_->names().rename(kRootIno, victim, kRootIno, target, RenameMode::replace, user_));
    });
    go = true;
    EXPECT_TRUE(engine_->files().flush(*copier));
    renamer.join();
    EXPECT_EQ(content(target), "precious");
  }
}

}  // namespace
}  // namespace rekeyfs
