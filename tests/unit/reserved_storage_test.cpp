// The reserve of a store, on a disk whose fill level the test controls.
#include "engine/io/reserved_storage.h"

#include <sys/stat.h>

#include <thread>

#include <gmock/gmock.h>

#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::io {
namespace {

constexpr std::uint64_t kMiB = 1u << 20;
constexpr std::uint64_t kReserve = ReservedStorage::kMaxReserve;

class ReservedStorageTest : public test::TempDirectory {
 protected:
  // What is allocated to the reserve's file counts, whatever else the disk holds is `used_`.
  class Disk final : public test::BorrowedStorage {
   public:
    Disk(ReservedStorageTest& test, Storage& files) : BorrowedStorage(files), test_(test) {}
    Result<Space> space() override {
      ++test_.looks_;
      const std::uint64_t free = test_.total_ - test_.used_ - test_.allocated();
      return Space{.total = test_.total_, .available = free, .free = free, .files = test_.files_};
    }

   private:
    ReservedStorageTest& test_;
  };

  void SetUp() override {
    faulty_ = std::make_unique<test::FaultyStorage>(directory());
    faulty_->set_hook([this](test::FaultyStorage::Operation operation, const std::string& path) -> Status {
      const bool takes = operation == test::FaultyStorage::Operation::write || operation == test::FaultyStorage::Operation::allocate;
      const std::uint64_t needed = path == kReserveName ? kReserve - allocated() : 1;
      return takes && total_ - used_ - allocated() < needed ? Status(fail(Errc::no_space)) : Status();
    });
    open();
  }
  void open() {
    storage_ = std::make_unique<ReservedStorage>(std::make_unique<Disk>(*this, *faulty_),
                                                 [](std::string_view path) { return path == "content"; });
    ASSERT_TRUE(storage_->adopt());
  }
  std::uint64_t allocated() const {
    struct stat facts {};
    return ::stat(path("reserve").c_str(), &facts) == 0 ? static_cast<std::uint64_t>(facts.st_blocks) * 512 : 0;
  }
  Status write(std::string_view name) {
    RK_TRY_ASSIGN(const std::unique_ptr<File> file, storage_->open(name, OpenMode::create));
    return file->write(0, as_bytes("x"));
  }
  void fill() { used_ = total_ - allocated(); }

  std::uint64_t total_ = 1024 * kMiB, used_ = 0, files_ = 1000;
  int looks_ = 0;
  std::unique_ptr<test::FaultyStorage> faulty_;
  std::unique_ptr<ReservedStorage> storage_;
};

TEST_F(ReservedStorageTest, OnAFullDiskAllButContentGetsTheReserve) {
  storage_->refill();
  EXPECT_EQ(allocated(), kReserve);
  fill();
  EXPECT_EQ(write("content").error().code, Errc::no_space);
  EXPECT_EQ(allocated(), kReserve);
  EXPECT_TRUE(storage_->room_to_change());
  EXPECT_TRUE(write("journal"));
  EXPECT_EQ(allocated(), 0u);
  EXPECT_EQ(write("content").error().code, Errc::no_space);

  used_ += kReserve / 4;
  std::this_thread::sleep_for(std::chrono::milliseconds(110));  // the answer of the file system is kept that long
  EXPECT_TRUE(storage_->room_to_change());
  used_ += kReserve / 2;
  std::this_thread::sleep_for(std::chrono::milliseconds(110));
  EXPECT_EQ(storage_->room_to_change().error().code, Errc::no_space) << "the other half is for deleting";
  EXPECT_TRUE(write("journal"));

  used_ = 0;
  storage_->refill();
  EXPECT_EQ(allocated(), kReserve);
  EXPECT_TRUE(write("content"));
}

TEST_F(ReservedStorageTest, WhatIsAddedIsCountedBeforeTheFileSystemIsAsked) {
  storage_->refill();
  used_ = total_ - kReserve - kReserve / 2 - 4 * kMiB;  // 4 MiB beyond reserve and headroom
  EXPECT_TRUE(storage_->room_to_add(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(110));
  looks_ = 0;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(storage_->room_to_add(kMiB - 1));
  EXPECT_LE(looks_, 2);
  used_ += 4 * kMiB;
  EXPECT_EQ(storage_->room_to_add(kMiB).error().code, Errc::no_space);
  EXPECT_EQ(storage_->space()->available, 0u);
}

TEST_F(ReservedStorageTest, TheReserveOfTheLastMountServesRecovery) {
  storage_->refill();
  fill();
  open();
  EXPECT_EQ(allocated(), kReserve);
  EXPECT_TRUE(write("journal"));
  EXPECT_EQ(allocated(), 0u);
  EXPECT_FALSE(storage_->with_reserve([&]() -> Status { return fail(Errc::no_space); })) << "it can be given once";
}

TEST_F(ReservedStorageTest, AReserveThatWasGivenBackIsNotBelievedToBeThere) {
  storage_->refill();
  fill();
  EXPECT_TRUE(write("journal"));
  fill();
  open();
  storage_->refill();  // what is there of it after recovery: nothing
  EXPECT_EQ(allocated(), 0u);
  EXPECT_EQ(storage_->room_to_add(1).error().code, Errc::no_space);
}

TEST_F(ReservedStorageTest, OtherFailuresKeepIt) {
  storage_->refill();
  EXPECT_EQ(storage_->with_reserve([&]() -> Status { return fail(Errc::io); }).error().code, Errc::io);
  EXPECT_EQ(allocated(), kReserve);
}

TEST_F(ReservedStorageTest, TheNumberOfFilesEndsToo) {
  storage_->refill();
  files_ = 3;
  std::this_thread::sleep_for(std::chrono::milliseconds(110));
  EXPECT_EQ(storage_->room_to_add(1).error().code, Errc::no_space);
}

}  // namespace
}  // namespace rekeyfs::io
