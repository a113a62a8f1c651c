// LocalStorage: the contract of Storage, and files planted in a store's directory.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "engine/io/local_storage.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::io {
namespace {

namespace fs = std::filesystem;

class LocalStorageTest : public test::TempDirectory {
 protected:
  LocalStorageTest() {
    fs::create_directory(path("store"));
    fs::create_directory(path("outside"));
    std::ofstream(path("outside/file")) << "not yours";
    storage_ = LocalStorage::open(path("store")).value();
  }
  std::string in_store(const std::string& name) const { return path("store/" + name); }
  void put(const std::string& name, std::string_view text) {
    ASSERT_TRUE(storage_->open(name, OpenMode::create).value()->write(0, as_bytes(text)));
  }
  std::string get(const std::string& name) {
    std::string text(1000, '\0');
    text.resize(storage_->open(name, OpenMode::read).value()->read(0, writable(text)).value());
    return text;
  }
  static ByteSpan writable(std::string& text) { return {reinterpret_cast<std::byte*>(text.data()), text.size()}; }
  std::string outside_file() const {
    std::string text;
    std::getline(std::ifstream(path("outside/file")) >> std::noskipws, text);
    return text;
  }
  mode_t mode_of(const std::string& name) const {
    struct stat facts {};
    EXPECT_EQ(::stat(in_store(name).c_str(), &facts), 0);
    return facts.st_mode & 07777;
  }
  std::uint64_t used(const std::string& name) const {
    struct stat facts {};
    EXPECT_EQ(::stat(in_store(name).c_str(), &facts), 0);
    return static_cast<std::uint64_t>(facts.st_blocks) * 512;
  }

  std::unique_ptr<LocalStorage> storage_;
};

TEST_F(LocalStorageTest, DirectoryMustExist) {
  EXPECT_EQ(LocalStorage::open(path("missing")).error().code, Errc::not_found);
  EXPECT_EQ(LocalStorage::open(path("outside/file")).error().code, Errc::not_directory);
}

TEST_F(LocalStorageTest, ReadsBackWhatWasWritten) {
  auto file = storage_->open("f", OpenMode::create_new).value();
  ASSERT_TRUE(file->write(0, as_bytes("hello")));
  ASSERT_TRUE(file->write(10, as_bytes("world")));
  EXPECT_EQ(file->size().value(), 15u);
  std::string text(100, 'x');
  EXPECT_EQ(file->read(0, writable(text)).value(), 15u);
  EXPECT_EQ(text.substr(0, 15), std::string("hello\0\0\0\0\0world", 15));
  EXPECT_EQ(file->read(12, writable(text)).value(), 3u);
  EXPECT_EQ(file->read(15, writable(text)).value(), 0u);
  EXPECT_EQ(file->read(1000, writable(text)).value(), 0u);
  EXPECT_TRUE(file->write(0, {}));
  EXPECT_TRUE(file->sync());
}

TEST_F(LocalStorageTest, OpenModes) {
  EXPECT_EQ(storage_->open("f", OpenMode::read).error().code, Errc::not_found);
  EXPECT_EQ(storage_->open("f", OpenMode::write).error().code, Errc::not_found);
  EXPECT_TRUE(storage_->open("f", OpenMode::create));
  EXPECT_TRUE(storage_->open("f", OpenMode::create));
  EXPECT_EQ(storage_->open("f", OpenMode::create_new).error().code, Errc::exists);
  EXPECT_EQ(storage_->open("f", OpenMode::read).value()->write(0, as_bytes("x")).error().code, Errc::bad_handle);
  EXPECT_TRUE(storage_->open("f", OpenMode::write).value()->write(0, as_bytes("x")));
  EXPECT_EQ(storage_->open("no/f", OpenMode::create).error().code, Errc::not_found);
}

TEST_F(LocalStorageTest, MadeForTheOwnerOnly) {
  const mode_t before = ::umask(0);
  ASSERT_TRUE(storage_->make_directory("d"));
  ASSERT_TRUE(storage_->open("d/f", OpenMode::create));
  ::umask(before);
  EXPECT_EQ(mode_of("d"), 0700u);
  EXPECT_EQ(mode_of("d/f"), 0600u);
}

TEST_F(LocalStorageTest, DescriptorsAreClosedOnExec) {
  auto file = storage_->open("f", OpenMode::create).value();
  int found = 0;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (!fs::read_symlink(entry.path(), gone).string().starts_with(path("store"))) continue;
    ++found;
    EXPECT_NE(::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC, 0) << entry;
  }
  EXPECT_EQ(found, 2);  // the directory and the file
}

TEST_F(LocalStorageTest, PunchGivesSpaceBackAndReadsZero) {
  auto file = storage_->open("f", OpenMode::create).value();
  ASSERT_TRUE(file->write(0, as_bytes(std::string(1 << 20, 'x'))));
  ASSERT_TRUE(file->sync());
  const std::uint64_t before = used("f");
  ASSERT_TRUE(file->punch(65536, 1 << 19));
  EXPECT_LE(used("f"), before - (1 << 19) + 65536);
  EXPECT_EQ(file->size().value(), 1u << 20);
  std::string text(3, '\1');
  ASSERT_EQ(file->read(65535, writable(text)).value(), 3u);
  EXPECT_EQ(text, std::string("x\0\0", 3));
  EXPECT_TRUE(file->punch(0, 0));
  ASSERT_TRUE(file->punch(1 << 20, 4096));
  EXPECT_EQ(file->size().value(), 1u << 20) << "punching does not grow a file";
}

TEST_F(LocalStorageTest, ReserveTakesSpaceAndKeepsContent) {
  auto file = storage_->open("f", OpenMode::create).value();
  ASSERT_TRUE(file->write(0, as_bytes("kept")));
  ASSERT_TRUE(file->reserve(0, 1 << 20));
  EXPECT_GE(used("f"), 1u << 20);
  EXPECT_EQ(file->size().value(), 1u << 20);
  EXPECT_EQ(get("f").substr(0, 5), std::string("kept\0", 5));
  EXPECT_TRUE(file->reserve(0, 0));
  ASSERT_TRUE(file->punch(4096, (1 << 20) - 4096));
  EXPECT_LT(used("f"), 1u << 16) << "what was reserved can be given back";
}

TEST_F(LocalStorageTest, ExistsTellsTheTruth) {
  EXPECT_FALSE(storage_->exists("f").value());
  EXPECT_FALSE(storage_->exists("d/f").value());
  put("f", "x");
  ASSERT_TRUE(storage_->make_directory("d"));
  EXPECT_TRUE(storage_->exists("f").value());
  EXPECT_TRUE(storage_->exists("d").value());
  EXPECT_TRUE(storage_->exists("").value());
}

TEST_F(LocalStorageTest, DirectoriesComeAndGo) {
  ASSERT_TRUE(storage_->make_directory("d"));
  EXPECT_TRUE(storage_->make_directory("d")) << "fine if it exists";
  EXPECT_EQ(storage_->make_directory("x/y").error().code, Errc::not_found);
  put("d/f", "x");
  EXPECT_EQ(storage_->make_directory("d/f").error().code, Errc::corrupt);
  EXPECT_EQ(storage_->remove_directory("d").error().code, Errc::not_empty);
  EXPECT_EQ(storage_->open("d", OpenMode::read).error().code, Errc::corrupt);
  EXPECT_EQ(storage_->remove("d").error().code, Errc::corrupt);
  ASSERT_TRUE(storage_->remove("d/f"));
  EXPECT_TRUE(storage_->remove("d/f")) << "fine if it is missing";
  EXPECT_TRUE(storage_->remove_directory("d"));
  EXPECT_TRUE(storage_->remove_directory("d")) << "fine if it is missing";
  EXPECT_TRUE(storage_->remove("d/f")) << "fine if its directory is missing too";
}

TEST_F(LocalStorageTest, RenameReplaces) {
  ASSERT_TRUE(storage_->make_directory("d"));
  put("a", "new");
  put("d/b", "old");
  ASSERT_TRUE(storage_->rename("a", "d/b"));
  EXPECT_EQ(get("d/b"), "new");
  EXPECT_FALSE(storage_->exists("a").value());
  EXPECT_EQ(storage_->rename("a", "c").error().code, Errc::not_found);
}

TEST_F(LocalStorageTest, ListsNames) {
  EXPECT_TRUE(storage_->list("").value().empty());
  ASSERT_TRUE(storage_->make_directory("d"));
  for (int i = 0; i < 1000; ++i) put("d/file-" + std::to_string(i), "");
  auto names = storage_->list("d").value();
  EXPECT_EQ(names.size(), 1000u);
  std::sort(names.begin(), names.end());
  EXPECT_EQ(std::unique(names.begin(), names.end()), names.end());
  EXPECT_EQ(names[0], "file-0");
  EXPECT_EQ(storage_->list("").value(), std::vector<std::string>{"d"});
  EXPECT_EQ(storage_->list("missing").error().code, Errc::not_found);
  EXPECT_EQ(storage_->list("d/file-1").error().code, Errc::corrupt);
}

TEST_F(LocalStorageTest, SyncsAndSpace) {
  put("f", "x");
  EXPECT_TRUE(storage_->sync_directory(""));
  EXPECT_EQ(storage_->sync_directory("missing").error().code, Errc::not_found);
  EXPECT_TRUE(storage_->sync_all());
  const Space space = storage_->space().value();
  EXPECT_GT(space.total, 0u);
  EXPECT_LE(space.available, space.total);
}

TEST_F(LocalStorageTest, PathsThatAreNotNamesAreInvalid) {
  ASSERT_TRUE(storage_->make_directory("d"));
  for (const std::string bad :
       {"/etc/passwd", "../outside/file", "d/../f", "d/..", "..", ".", "./f", "d//f", "d/", "/"}) {
    EXPECT_EQ(storage_->open(bad, OpenMode::create).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->exists(bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->make_directory(bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->remove(bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->remove_directory(bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->rename("d", bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->rename(bad, "e").error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->list(bad).error().code, Errc::invalid) << bad;
    EXPECT_EQ(storage_->sync_directory(bad).error().code, Errc::invalid) << bad;
  }
  EXPECT_EQ(storage_->open(std::string("a\0b", 3), OpenMode::create).error().code, Errc::invalid);
  EXPECT_EQ(storage_->remove_directory("").error().code, Errc::invalid);
}

TEST_F(LocalStorageTest, PlantedLinkToAFileIsNotFollowed) {
  for (const std::string& target :
       {path("outside/file"), std::string("../outside/file"), std::string("real"), std::string("missing")}) {
    put("real", "real");
    fs::create_symlink(target, in_store("link"));
    for (OpenMode mode : {OpenMode::read, OpenMode::write, OpenMode::create})
      EXPECT_EQ(storage_->open("link", mode).error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->open("link", OpenMode::create_new).error().code, Errc::exists) << target;
    EXPECT_EQ(storage_->exists("link").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->make_directory("link").error().code, Errc::corrupt) << target;
    EXPECT_TRUE(storage_->remove("link")) << "removes the link, not what it names";
    EXPECT_FALSE(fs::exists(in_store("missing")));
    EXPECT_EQ(get("real"), "real");
  }
  EXPECT_EQ(outside_file(), "not yours");
}

TEST_F(LocalStorageTest, PlantedLinkToADirectoryIsNotFollowed) {
  for (const std::string& target : {path("outside"), std::string("../outside"), std::string("/proc/self/root")}) {
    fs::create_directory_symlink(target, in_store("d"));
    EXPECT_EQ(storage_->open("d/file", OpenMode::write).error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->open("d/new", OpenMode::create).error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->make_directory("d/new").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->make_directory("d").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->remove("d/file").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->remove_directory("d/sub").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->list("d").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->sync_directory("d").error().code, Errc::corrupt) << target;
    put("mine", "mine");
    EXPECT_EQ(storage_->rename("mine", "d/file").error().code, Errc::corrupt) << target;
    EXPECT_EQ(storage_->rename("d/file", "mine").error().code, Errc::corrupt) << target;
    ASSERT_TRUE(storage_->remove("d"));
  }
  EXPECT_EQ(outside_file(), "not yours");
  EXPECT_FALSE(fs::exists(path("outside/new")));
}

TEST_F(LocalStorageTest, RenameOverAPlantedLinkReplacesTheLink) {
  fs::create_symlink(path("outside/file"), in_store("target"));
  put("source", "data");
  ASSERT_TRUE(storage_->rename("source", "target"));
  EXPECT_FALSE(fs::is_symlink(in_store("target")));
  EXPECT_EQ(get("target"), "data");
  EXPECT_EQ(outside_file(), "not yours");
}

TEST_F(LocalStorageTest, PlantedPipeDoesNotBlock) {
  ASSERT_EQ(::mkfifo(in_store("pipe").c_str(), 0600), 0);
  for (OpenMode mode : {OpenMode::read, OpenMode::write, OpenMode::create})
    EXPECT_EQ(storage_->open("pipe", mode).error().code, Errc::corrupt);
}

TEST_F(LocalStorageTest, StoreMayBeMovedWhileOpen) {
  put("f", "data");
  fs::rename(path("store"), path("moved"));
  fs::create_directory_symlink(path("outside"), path("store"));
  EXPECT_EQ(get("f"), "data");
  EXPECT_FALSE(storage_->exists("file").value());
}

TEST_F(LocalStorageTest, ManyThreadsShareOneFile) {
  auto file = storage_->open("f", OpenMode::create).value();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 200; ++i) {
        const std::string text(100, static_cast<char>('a' + t));
        EXPECT_TRUE(file->write(std::uint64_t{i * 4 + t} * 100, as_bytes(text)));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::string all(80000, '\0');
  ASSERT_EQ(file->read(0, writable(all)).value(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<char>('a' + i / 100 % 4)) << i;
}

}  // namespace
}  // namespace rekeyfs::io
