// Rotation of a directory's key: on a disk with little more space than its images need, the estimate made beforehand,
// and policies changed in several transactions.
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <random>
#include <thread>

#include <gmock/gmock.h>

#include "engine/make_engine.h"
#include "engine/namespace/tree.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using test::FaultyStorage;
using testing::AllOf;
using testing::Ge;
using testing::Le;

const Caller kUser{0, 0, true};
constexpr std::uint64_t kMiB = 1u << 20;

// A disk of `capacity` bytes, which the store's files share with nobody.
class SmallDisk final : public test::BorrowedStorage {
 public:
  SmallDisk(io::Storage& storage, std::string directory, std::uint64_t capacity)
      : BorrowedStorage(storage), directory_(std::move(directory)), capacity_(capacity) {}
  Result<io::Space> space() override {
    RK_TRY_ASSIGN(io::Space space, BorrowedStorage::space());
    const std::uint64_t used = bytes_used();
    space.total = capacity_;
    space.free = space.available = capacity_ - std::min(capacity_, used);
    return space;
  }

 private:
  std::uint64_t bytes_used() const {
    std::uint64_t used = 0;
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory_, error)) {
      struct stat facts {};
      if (::stat(entry.path().c_str(), &facts) == 0) used += static_cast<std::uint64_t>(facts.st_blocks) * 512;
    }
    return used;
  }

  const std::string directory_;
  const std::uint64_t capacity_;
};

class RotationTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    storage_ = std::make_unique<FaultyStorage>(path("store"));
    open();
    for (const char* key : {"old", "new"}) ASSERT_TRUE(engine_->keys().create(key, kUser));
    folder_ = make_folder(kRootIno, "folder");
    set_key(folder_, "old");
  }
  void TearDown() override {
    if (!engine_) return;
    EXPECT_TRUE(engine_->close());
  }

  void open(unsigned workers = 2) {
    auto disk = std::make_unique<SmallDisk>(*storage_, path("store"), capacity_);
    auto store = store::Store::open(path("store"), test::test_credential(), false, std::move(disk));
    ASSERT_TRUE(store) << test::error_text(store);
    catalog_ = &(*store)->catalog();
    OpenOptions options;
    options.filler_workers = workers;
    auto engine = make_engine(path("store"), std::move(*store), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }
  void reopen(unsigned workers = 2) {
    ASSERT_TRUE(engine_->close());
    engine_.reset();
    open(workers);
  }
  Ino make_folder(Ino parent, const std::string& name) {
    const auto made = engine_->names().make_directory(parent, name, 0755, kUser);
    EXPECT_TRUE(made) << test::error_text(made);
    return made->ino;
  }
  void set_key(Ino folder, const std::string& key) {
    ASSERT_TRUE(engine_->names().setxattr(folder, "user.rekeyfs.key", key, XattrMode::either, kUser));
  }
  Ino make_image(const std::string& name, std::uint64_t size) {
    auto made = engine_->files().create(folder_, name, 0600, 0, kUser);
    EXPECT_TRUE(made) << test::error_text(made);
    std::string content(size, '\0');
    for (std::size_t at = 0; at < content.size(); at += 8) std::memcpy(&content[at], std::to_string(random_()).data(), 8);
    EXPECT_TRUE(engine_->files().write(*made->file, 0, as_bytes(content)));
    EXPECT_TRUE(engine_->files().flush(*made->file));
    return made->attributes.ino;
  }
  void copy(Ino from, const std::string& name) {
    const auto in = engine_->files().open(from, O_RDONLY, kUser);
    auto out = engine_->files().create(folder_, name, 0600, 0, kUser);
    ASSERT_TRUE(in && out);
    const std::uint64_t size = engine_->names().getattr(from)->size;
    ASSERT_TRUE(engine_->files().copy_range(**in, 0, *out->file, 0, size, kUser));
    ASSERT_TRUE(engine_->files().flush(*out->file));
  }
  std::string key_of(Ino ino) {
    const auto key = engine_->names().getxattr(ino, "user.rekeyfs.key");
    return key ? *key : test::error_text(key);
  }
  bool wait_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(20ms);
    }
    return true;
  }
  std::uint64_t room() { return engine_->reports().space()->available; }

  std::uint64_t capacity_ = 64 * kMiB;
  std::mt19937_64 random_{5};
  std::unique_ptr<FaultyStorage> storage_;
  catalog::Catalog* catalog_ = nullptr;
  std::unique_ptr<Engine> engine_;
  Ino folder_;
};

TEST_F(RotationTest, CompletesImageByImageOnADiskThatIsMoreThanHalfFull) {
  constexpr std::uint64_t kSize = 2 * kMiB;
  std::vector<Ino> images;
  while (room() > kSize + 3 * kMiB) images.push_back(make_image(std::to_string(images.size()), kSize));
  ASSERT_GT(images.size() * kSize, capacity_ / 2);
  const auto plan = engine_->keys().rotate_directory(folder_, "new", kUser);
  ASSERT_TRUE(plan) << test::error_text(plan);
  EXPECT_EQ(plan->images, images.size());
  EXPECT_THAT(plan->bytes_to_transform, AllOf(Ge(images.size() * kSize), Le(images.size() * (kSize + 64 * 1024))));
  EXPECT_THAT(plan->space_needed, AllOf(Ge(kSize), Le(kSize + images.size() * 16 * 1024))) << "one image, and all tables";
  EXPECT_TRUE(wait_until([&] { return engine_->reports().replications(kRootIno)->empty(); }));
  EXPECT_TRUE(engine_->keys().uses("old")->empty());
  for (const Ino image : images) EXPECT_EQ(key_of(image), "new");
}

TEST_F(RotationTest, IsRefusedBeforehandWhereOneImageDoesNotFit) {
  const Ino image = make_image("image", 36 * kMiB);
  const auto plan = engine_->keys().plan_rotation(folder_, "new", kUser);
  ASSERT_TRUE(plan) << test::error_text(plan);
  EXPECT_GT(plan->space_needed, plan->space_available);
  const auto refused = engine_->keys().rotate_directory(folder_, "new", kUser);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::no_space);
  EXPECT_THAT(refused.error().message, testing::HasSubstr(std::to_string((plan->space_needed + kMiB - 1) / kMiB) + " MiB"));
  EXPECT_EQ(key_of(folder_), "old");
  EXPECT_EQ(key_of(image), "old");
  EXPECT_TRUE(engine_->reports().replications(kRootIno)->empty());
}

TEST_F(RotationTest, ClonesAreCountedInFullAndWhatTheyShareGoesWithTheLast) {
  constexpr std::uint64_t kSize = 2 * kMiB;
  const Ino golden = make_image("golden", kSize);
  for (int clone = 0; clone < 4; ++clone) copy(golden, std::to_string(clone));
  auto plan = engine_->keys().plan_rotation(folder_, "new", kUser);
  ASSERT_TRUE(plan) << test::error_text(plan);
  EXPECT_EQ(plan->images, 5u);
  EXPECT_THAT(plan->bytes_to_transform, AllOf(Ge(5 * kSize), Le(5 * (kSize + 64 * 1024))));
  EXPECT_THAT(plan->space_needed, AllOf(Ge(5 * kSize), Le(5 * (kSize + 64 * 1024))));
  // A clone elsewhere keeps it for ever; other images do not add to it, as each gives back what it took.
  for (int other = 0; other < 3; ++other) make_image("other" + std::to_string(other), kSize);
  plan = engine_->keys().plan_rotation(folder_, "new", kUser);
  EXPECT_EQ(plan->images, 8u);
  EXPECT_THAT(plan->space_needed, AllOf(Ge(5 * kSize), Le(6 * (kSize + 64 * 1024))));
  EXPECT_EQ(engine_->keys().plan_rotation(folder_, "old", kUser)->images, 0u);
}

TEST_F(RotationTest, PoliciesOfManyDirectoriesChangeInPieces) {
  for (int child = 0; child < 600; ++child) make_folder(folder_, std::to_string(child));
  std::atomic<int> records{0};
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& file) -> Status {
    records += operation == FaultyStorage::Operation::write && file.starts_with("journal/") ? 1 : 0;
    return {};
  });
  ASSERT_TRUE(engine_->keys().rotate_directory(folder_, "new", kUser));
  storage_->set_hook(nullptr);
  EXPECT_GE(records, 600 / 256 + 3);
  for (int child = 0; child < 600; child += 50) EXPECT_EQ(key_of(engine_->names().lookup(folder_, std::to_string(child))->ino), "new");
}

TEST_F(RotationTest, PoliciesThatAKillLeftAreChangedByTheNextMount) {
  const Ino first = make_folder(folder_, "first"), second = make_folder(folder_, "second"), below = make_folder(second, "below");
  const Ino other = make_folder(folder_, "other");
  set_key(other, "old");
  ASSERT_TRUE(engine_->keys().create("third", kUser));
  set_key(other, "third");
  {  // as a kill leaves it that comes when the first of them has changed
    const std::string id = engine_->keys().find("new")->id;
    Uuid key{};
    for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(std::stoi(id.substr(2 * i, 2), nullptr, 16));
    catalog::WriteTxn txn(*catalog_);
    txn.put(catalog::make_key(catalog::Table::rotation, folder_.value()), Writer().put_raw(key).put(std::uint32_t{0}).take());
    auto inode = names::Tree::get(txn, first);
    ASSERT_TRUE(inode);
    inode->policy.key = key;
    names::Tree::put(txn, first, *inode);
    ASSERT_TRUE(txn.commit());
  }
  reopen();
  EXPECT_TRUE(wait_until([&] { return key_of(folder_) == "new"; }));
  EXPECT_EQ(key_of(second), "new");
  EXPECT_EQ(key_of(below), "new");
  EXPECT_EQ(key_of(other), "third");
}

TEST_F(RotationTest, AKeyThatIsChosenByHandEndsIt) {
  make_image("image", kMiB);
  reopen(0);  // nothing is filled: the rotation goes on
  ASSERT_TRUE(engine_->keys().rotate_directory(folder_, "new", kUser));
  ASSERT_TRUE(engine_->keys().create("third", kUser));
  set_key(folder_, "third");
  std::this_thread::sleep_for(1500ms);
  EXPECT_EQ(key_of(folder_), "third");
}

}  // namespace
}  // namespace rekeyfs
