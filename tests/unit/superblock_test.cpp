// The superblock: unlocking, wrong secrets, and damaged or forged files.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "engine/io/local_storage.h"
#include "engine/store/superblock.h"
#include "tests/support/storage_faults.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::store {
namespace {

constexpr crypto::ScryptCost kCheap{10, 8, 1};

Credential passphrase(const std::string& text = "correct horse") {
  return {Credential::Kind::passphrase, text};
}
Credential key_file(const std::string& text = std::string(32, 'k')) {
  return {Credential::Kind::key_file, text};
}

class SuperblockTest : public test::TempDirectory {
 protected:
  std::string file() const {
    std::ifstream in(path("rekeyfs.store"), std::ios::binary);
    std::ostringstream bytes;
    bytes << in.rdbuf();
    return bytes.str();
  }
  void write_file(const std::string& bytes) {
    std::ofstream(path("rekeyfs.store"), std::ios::binary | std::ios::trunc) << bytes;
  }
  // What an attacker can do who knows the format but no secret: change bytes and set the checksum right.
  void forge(const std::function<void(std::string&)>& change) {
    std::string bytes = file();
    change(bytes);
    const std::size_t checked = bytes.size() - 64;
    crypto::Sha256 hash;
    hash.update(as_bytes(bytes).first(checked));
    bytes.replace(checked, 32, as_text(hash.finish()));
    write_file(bytes);
  }
  // A superblock under its own name.
  Result<Unlocked> make(const Credential& credential, crypto::ScryptCost cost = {}) {
    RK_TRY_ASSIGN(Unlocked unlocked, create_superblock(*storage_, credential, cost));
    RK_TRY(publish_superblock(*storage_));
    return unlocked;
  }
  Errc open_error(const Credential& credential) {
    auto opened = open_superblock(*storage_, credential);
    EXPECT_FALSE(opened);
    EXPECT_NE(opened.error().message, "");
    return opened.error().code;
  }

  std::unique_ptr<io::LocalStorage> storage_ = io::LocalStorage::open(directory()).value();
};

TEST_F(SuperblockTest, ItsNameIsDurableWhenItHasIt) {
  test::FaultyStorage storage(directory());
  ASSERT_TRUE(create_superblock(storage, key_file()));
  bool synced = false;
  storage.set_hook([&](test::FaultyStorage::Operation operation, const std::string& path) -> Status {
    synced = operation == test::FaultyStorage::Operation::sync && path.empty() && std::filesystem::exists(this->path("rekeyfs.store"));
    return {};
  });
  ASSERT_TRUE(publish_superblock(storage));
  EXPECT_TRUE(synced);
}

TEST_F(SuperblockTest, KeyFileUnlocks) {
  const Unlocked made = make(key_file()).value();
  const Unlocked opened = open_superblock(*storage_, key_file()).value();
  EXPECT_TRUE(opened.root == made.root);
  EXPECT_EQ(opened.superblock.store_id, made.superblock.store_id);
  EXPECT_EQ(opened.superblock.kind, Credential::Kind::key_file);
  EXPECT_EQ(opened.superblock.version, kFormatVersion);
  EXPECT_EQ(std::to_integer<int>(opened.superblock.store_id[6]) >> 4, 4);
}

TEST_F(SuperblockTest, PassphraseUnlocks) {
  const Unlocked made = make(passphrase(), kCheap).value();
  EXPECT_TRUE(open_superblock(*storage_, passphrase()).value().root == made.root);
}

TEST_F(SuperblockTest, CanBeIdentifiedWithoutUnlocking) {
  const Unlocked made = make(passphrase(), kCheap).value();
  const Superblock read = read_superblock(*storage_).value();
  EXPECT_EQ(read.store_id, made.superblock.store_id);
  EXPECT_EQ(read.kind, Credential::Kind::passphrase);
}

TEST_F(SuperblockTest, LayoutIsAsDocumented) {
  const Unlocked made = make(passphrase(), kCheap).value();
  const std::string bytes = file();
  EXPECT_EQ(bytes.size(), 220u);
  EXPECT_EQ(bytes.substr(0, 12), std::string("rekeyfs\n\x01\0\0\0", 12));
  EXPECT_EQ(bytes.substr(12, 16), as_text(made.superblock.store_id));
  EXPECT_EQ(bytes.substr(28, 4), "\x01\x0a\x08\x01");
}

TEST_F(SuperblockTest, ItIsAStoreOnlyWhenThatIsPublished) {
  ASSERT_TRUE(create_superblock(*storage_, key_file()));
  EXPECT_EQ(storage_->list("").value(), std::vector<std::string>{"rekeyfs.store.new"});
  EXPECT_EQ(open_error(key_file()), Errc::not_found);
  ASSERT_TRUE(publish_superblock(*storage_));
  EXPECT_EQ(storage_->list("").value(), std::vector<std::string>{"rekeyfs.store"});
  EXPECT_TRUE(open_superblock(*storage_, key_file()));
}

TEST_F(SuperblockTest, ExistingStoreIsKept) {
  ASSERT_TRUE(create_superblock(*storage_, key_file()));
  EXPECT_EQ(create_superblock(*storage_, key_file()).error().code, Errc::exists);
  ASSERT_TRUE(publish_superblock(*storage_));
  const std::string before = file();
  EXPECT_EQ(create_superblock(*storage_, key_file()).error().code, Errc::exists);
  EXPECT_EQ(storage_->list("").value(), std::vector<std::string>{"rekeyfs.store"});
  EXPECT_EQ(file(), before);
}

TEST_F(SuperblockTest, RefusesUselessSecrets) {
  EXPECT_EQ(create_superblock(*storage_, passphrase(""), kCheap).error().code, Errc::invalid);
  EXPECT_EQ(create_superblock(*storage_, key_file("")).error().code, Errc::invalid);
  EXPECT_EQ(create_superblock(*storage_, key_file(std::string(31, 'k'))).error().code, Errc::invalid);
  EXPECT_EQ(create_superblock(*storage_, key_file(std::string(65537, 'k'))).error().code, Errc::invalid);
  EXPECT_EQ(create_superblock(*storage_, passphrase(), {9, 8, 1}).error().code, Errc::invalid);
  EXPECT_EQ(create_superblock(*storage_, passphrase(), {22, 8, 1}).error().code, Errc::invalid);
  EXPECT_TRUE(storage_->list("").value().empty());
  EXPECT_TRUE(create_superblock(*storage_, key_file(std::string(65536, 'k'))));
}

TEST_F(SuperblockTest, NoStoreIsNotFound) {
  EXPECT_EQ(open_error(key_file()), Errc::not_found);
}

TEST_F(SuperblockTest, WrongSecretIsToldFromDamage) {
  ASSERT_TRUE(make(passphrase(), kCheap));
  EXPECT_EQ(open_error(passphrase("correct horsf")), Errc::wrong_secret);
  EXPECT_EQ(open_error(passphrase("")), Errc::wrong_secret);
  EXPECT_EQ(open_error(key_file()), Errc::wrong_secret);
}

TEST_F(SuperblockTest, WrongKeyFileIsToldFromDamage) {
  ASSERT_TRUE(make(key_file()));
  EXPECT_EQ(open_error(key_file(std::string(33, 'k'))), Errc::wrong_secret);
  EXPECT_EQ(open_error(key_file("short")), Errc::wrong_secret);
  EXPECT_EQ(open_error(passphrase(std::string(32, 'k'))), Errc::wrong_secret);
}

TEST_F(SuperblockTest, EveryChangedByteIsDamage) {
  ASSERT_TRUE(make(key_file()));
  const std::string good = file();
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int change : {0x01, 0x80, 0xff}) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      write_file(bytes);
      EXPECT_EQ(open_error(key_file()), Errc::corrupt) << i;
      EXPECT_EQ(read_superblock(*storage_).has_value(), i >= 188) << i;  // the MAC needs the key
    }
  }
}

TEST_F(SuperblockTest, EveryOtherLengthIsDamage) {
  ASSERT_TRUE(make(key_file()));
  const std::string good = file();
  for (std::size_t size = 0; size < good.size(); ++size) {
    write_file(good.substr(0, size));
    EXPECT_EQ(open_error(key_file()), Errc::corrupt) << size;
  }
  for (std::size_t more : {1u, 32u, 100u, 5000u}) {
    write_file(good + std::string(more, '\0'));
    EXPECT_EQ(open_error(key_file()), Errc::corrupt) << more;
  }
}

// Every byte in front of the checksum, changed by somebody who also sets the checksum right.
TEST_F(SuperblockTest, NoForgedByteUnlocks) {
  ASSERT_TRUE(make(key_file()));
  const std::string good = file();
  for (std::size_t i = 0; i < 156; ++i) {
    write_file(good);
    forge([&](std::string& bytes) { bytes[i] = static_cast<char>(bytes[i] ^ 1); });
    const Errc error = open_error(key_file());
    if (i < 8) {
      EXPECT_EQ(error, Errc::corrupt) << "magic";
    } else if (i < 12) {
      EXPECT_EQ(error, Errc::wrong_version) << "version";
    } else if (i >= 32 && i < 96) {
      EXPECT_EQ(error, Errc::wrong_secret) << "salt and commitment: another key is needed";
    } else {
      EXPECT_TRUE(error == Errc::corrupt || error == Errc::wrong_secret) << i;
    }
  }
}

TEST_F(SuperblockTest, LaterVersionOfAnotherSizeIsNotDamage) {
  ASSERT_TRUE(make(key_file()));
  forge([](std::string& bytes) {
    bytes[8] = 3;
    bytes.insert(100, 50, 'x');
  });
  EXPECT_EQ(open_error(key_file()), Errc::wrong_version);
  EXPECT_EQ(read_superblock(*storage_).error().code, Errc::wrong_version);
}

TEST_F(SuperblockTest, ThisVersionHasOneSize) {
  ASSERT_TRUE(make(key_file()));
  forge([](std::string& bytes) { bytes.insert(156, 50, 'x'); });
  EXPECT_EQ(open_error(key_file()), Errc::corrupt);
  EXPECT_EQ(read_superblock(*storage_).error().code, Errc::corrupt);
}

// A superblock is read before anything can be authenticated: its costs must not use up the machine.
TEST_F(SuperblockTest, HostileCostsAreRefusedAtOnce) {
  ASSERT_TRUE(make(passphrase(), kCheap));
  const std::string good = file();
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& cost :
       {std::string("\x16\x20\x10"), std::string("\xff\xff\xff"), std::string("\x16\x08\x01"),
        std::string("\x14\x10\x01"), std::string("\x11\x20\x10"), std::string("\x00\x08\x01", 3),
        std::string("\x0a\x00\x01", 3), std::string("\x0a\x08\x00", 3)}) {
    write_file(good);
    forge([&](std::string& bytes) { bytes.replace(29, 3, cost); });
    EXPECT_EQ(open_error(passphrase()), Errc::corrupt);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST_F(SuperblockTest, PlantedLinkIsNotFollowed) {
  ASSERT_TRUE(make(key_file()));
  std::filesystem::rename(path("rekeyfs.store"), path("elsewhere"));
  std::filesystem::create_symlink("elsewhere", path("rekeyfs.store"));
  EXPECT_EQ(open_error(key_file()), Errc::corrupt);
}

}  // namespace
}  // namespace rekeyfs::store
