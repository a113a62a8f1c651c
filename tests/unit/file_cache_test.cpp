// The cache of open files, on a disk that counts them and fails on request.
#include "engine/io/file_cache.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include <sys/resource.h>

#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::io {
namespace {

using test::FaultyStorage;

class FileCacheTest : public test::TempDirectory {
 protected:
  // Counts the files of the storage below that are open.
  class Counted final : public test::BorrowedStorage {
   public:
    Counted(FileCacheTest& test, Storage& files) : BorrowedStorage(files), test_(test) {}
    Result<std::unique_ptr<File>> open(std::string_view path, OpenMode mode) override {
      if (test_.open_ >= test_.descriptors_) return fail(Errc::too_many_files);
      RK_TRY_ASSIGN(std::unique_ptr<File> file, BorrowedStorage::open(path, mode));
      return std::make_unique<CountedFile>(test_, std::move(file));
    }
    Status sync_all() override {
      ++test_.syncs_of_all_;
      return BorrowedStorage::sync_all();
    }

   private:
    FileCacheTest& test_;
  };
  class CountedFile final : public File {
   public:
    CountedFile(FileCacheTest& test, std::unique_ptr<File> file) : test_(test), file_(std::move(file)) {
      const int now = ++test_.open_;
      for (int seen = test_.most_seen_; now > seen && !test_.most_seen_.compare_exchange_weak(seen, now);) continue;
    }
    ~CountedFile() override {
      file_.reset();
      --test_.open_;
    }
    Result<std::size_t> read(std::uint64_t offset, ByteSpan out) override { return file_->read(offset, out); }
    Status write(std::uint64_t offset, ByteView bytes) override { return file_->write(offset, bytes); }
    Status sync() override {
      ++test_.syncs_;
      return file_->sync();
    }
    Status punch(std::uint64_t offset, std::uint64_t size) override { return file_->punch(offset, size); }
    Status reserve(std::uint64_t offset, std::uint64_t size) override { return file_->reserve(offset, size); }
    Result<std::uint64_t> reserved(std::uint64_t offset, std::uint64_t size) override { return file_->reserved(offset, size); }
    Result<std::uint64_t> size() override { return file_->size(); }

   private:
    FileCacheTest& test_;
    std::unique_ptr<File> file_;
  };

  FileCacheTest() : faulty_(directory()) {}
  void make(std::size_t most) { cache_ = std::make_unique<FileCache>(std::make_unique<Counted>(*this, faulty_), most); }
  std::unique_ptr<File> open(const std::string& name, OpenMode mode = OpenMode::create) {
    auto file = cache_->open(name, mode);
    EXPECT_TRUE(file) << test::error_text(file);
    return file ? std::move(*file) : nullptr;
  }
  // A file that holds its own name, and is not synced.
  std::unique_ptr<File> written(const std::string& name) {
    auto file = open(name);
    EXPECT_TRUE(file->write(0, as_bytes(name)));
    return file;
  }
  static std::string text(File& file) {
    std::string got(64, '\0');
    const auto size = file.read(0, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    if (!size) return test::error_text(size.error());
    got.resize(*size);
    return got;
  }
  void fail_syncs_of_all(Errc code) {
    faulty_.set_hook([code](FaultyStorage::Operation operation, const std::string& path) {
      return operation == FaultyStorage::Operation::sync && path.empty() ? Status(fail(code, "the disk fails")) : Status();
    });
  }

  std::atomic<int> open_{0}, most_seen_{0}, syncs_{0}, syncs_of_all_{0};
  std::atomic<int> descriptors_{1000};
  FaultyStorage faulty_;
  std::unique_ptr<FileCache> cache_;
};

TEST_F(FileCacheTest, AnyNumberOfFilesIsInUseWithFewOpen) {
  make(4);
  std::vector<std::unique_ptr<File>> files;
  for (int n = 0; n < 100; ++n) files.push_back(written("file" + std::to_string(n)));
  for (int n = 99; n >= 0; --n) EXPECT_EQ(text(*files[static_cast<std::size_t>(n)]), "file" + std::to_string(n));
  EXPECT_EQ(most_seen_, 4);
  EXPECT_EQ(cache_->open_files(), 4u);
  EXPECT_LT(syncs_of_all_, 50) << "one for several files";
  files.clear();
  EXPECT_EQ(open_, 0);
  EXPECT_EQ(cache_->open_files(), 0u);
}

TEST_F(FileCacheTest, TheLeastRecentlyUsedFileIsClosed) {
  make(3);
  const auto a = written("a"), b = written("b"), c = written("c");
  ASSERT_TRUE(cache_->sync_all());
  EXPECT_EQ(text(*a), "a");
  const auto d = open("d");
  descriptors_ = 0;  // what is closed stays so
  EXPECT_EQ(text(*a), "a");
  EXPECT_EQ(text(*c), "c");
  EXPECT_NE(text(*b), "b");
}

TEST_F(FileCacheTest, AFileIsClosedOnlyWhenItsWritesAreDurable) {
  make(2);
  const auto a = written("a"), b = written("b");
  EXPECT_EQ(syncs_of_all_, 0);
  const auto c = written("c");
  EXPECT_EQ(syncs_of_all_, 1);
  EXPECT_TRUE(a->sync());
  EXPECT_TRUE(b->sync());
  EXPECT_LE(syncs_, 1) << "a closed file is synced";
  cache_->open("d", OpenMode::create).value().reset();
  faulty_.power_cut(1, 0);
  EXPECT_EQ(text(*a), "a");
  EXPECT_EQ(text(*b), "b");
}

TEST_F(FileCacheTest, ASyncedFileIsClosedWithoutAnotherSync) {
  make(2);
  const auto a = written("a"), b = written("b");
  ASSERT_TRUE(b->sync());
  const auto c = open("c");
  EXPECT_EQ(syncs_of_all_, 0);
  EXPECT_EQ(text(*a), "a");
}

TEST_F(FileCacheTest, AWriteDuringASyncIsNotTakenForSynced) {
  make(2);
  const auto a = written("a");
  bool written_meanwhile = false;
  faulty_.set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation != FaultyStorage::Operation::sync || path != "a" || std::exchange(written_meanwhile, true)) return {};
    return a->write(0, as_bytes("A"));
  });
  ASSERT_TRUE(a->sync());
  ASSERT_TRUE(written_meanwhile);
  const auto b = written("b"), c = open("c");
  EXPECT_EQ(syncs_of_all_, 1);
}

TEST_F(FileCacheTest, AFailedSyncForADescriptorIsToldToEverySyncThatFollows) {
  make(2);
  const auto a = written("a"), b = written("b");
  fail_syncs_of_all(Errc::io);
  const auto c = open("c");  // reading must go on
  faulty_.set_hook(nullptr);
  const auto d = written("d");
  EXPECT_EQ(most_seen_, 2);
  for (int again = 0; again < 2; ++again) {
    for (File* file : {a.get(), b.get(), c.get(), d.get()}) EXPECT_EQ(file->sync().error().message, "the disk fails");
    EXPECT_EQ(cache_->sync_all().error().code, Errc::io);
  }
  EXPECT_EQ(text(*a), "a");
  EXPECT_EQ(text(*d), "d");
}

TEST_F(FileCacheTest, AShortageDuringASyncForADescriptorPasses) {
  make(2);
  const auto a = written("a"), b = written("b");
  fail_syncs_of_all(Errc::no_space);
  EXPECT_EQ(cache_->open("c", OpenMode::create).error().code, Errc::no_space);
  EXPECT_EQ(text(*a), "a") << "what is open stays so";
  faulty_.set_hook(nullptr);
  const auto c = written("c");
  EXPECT_TRUE(a->sync());
  EXPECT_TRUE(cache_->sync_all());
}

TEST_F(FileCacheTest, WhereTheProcessHasNoDescriptorLeftAnotherFileIsClosed) {
  make(100);
  std::vector<std::unique_ptr<File>> files;
  for (int n = 0; n < 10; ++n) files.push_back(written("file" + std::to_string(n)));
  descriptors_ = 10;
  const auto one_more = written("more");
  EXPECT_EQ(syncs_of_all_, 1);
  for (std::size_t n = 0; n < files.size(); ++n) EXPECT_EQ(text(*files[n]), "file" + std::to_string(n));
  descriptors_ = 0;
  EXPECT_EQ(cache_->open("refused", OpenMode::create).error().code, Errc::too_many_files);
  descriptors_ = 100;
  EXPECT_TRUE(cache_->open("taken", OpenMode::create)) << "the error passes";
}

TEST_F(FileCacheTest, AFileThatWasRemovedMeanwhileIsDamage) {
  make(1);
  const auto a = written("a");
  ASSERT_TRUE(a->sync());
  open("b").reset();
  ASSERT_TRUE(cache_->remove("a"));
  std::byte byte{};
  EXPECT_EQ(a->read(0, {&byte, 1}).error().code, Errc::corrupt);
}

TEST_F(FileCacheTest, ManyThreadsShareFewDescriptors) {
  make(3);
  constexpr int kThreads = 6, kFiles = 8;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(static_cast<unsigned>(thread));
      std::vector<std::pair<std::unique_ptr<File>, std::string>> files;
      for (int n = 0; n < kFiles; ++n) files.emplace_back(open(std::to_string(thread) + "-" + std::to_string(n)), "");
      for (int step = 0; step < 300; ++step) {
        auto& [file, content] = files[random() % files.size()];
        switch (random() % 4) {
          case 0:
            content = std::to_string(10000 + step);
            if (!file->write(0, as_bytes(content))) ++wrong;
            break;
          case 1:
            if (!file->sync()) ++wrong;
            break;
          default:
            if (text(*file) != content) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(most_seen_, 3);
}

TEST(FileCacheSizeTest, LeavesDescriptorsForTheRestOfTheProcess) {
  EXPECT_EQ(FileCache::most_for_limit(256), 160u);
  EXPECT_EQ(FileCache::most_for_limit(1024), 768u);
  EXPECT_EQ(FileCache::most_for_limit(20000), 15000u);
  EXPECT_EQ(FileCache::most_for_limit(RLIM_INFINITY), 16384u);
  EXPECT_EQ(FileCache::most_for_limit(20), 8u);
  EXPECT_EQ(FileCache::most_for_limit(0), 8u);
}

}  // namespace
}  // namespace rekeyfs::io
