// Repeated kills while a store with a long journal is being opened: the store still ends in the right state.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using Clock = std::chrono::steady_clock;
const Caller kRootUser{0, 0, true};
constexpr int kImages = 40;
constexpr std::size_t kWrite = 3 * 16384 + 100;

class RecoveryKillTest : public test::TempDirectory {
 protected:
  std::string content_of(int image) {
    std::mt19937_64 random(static_cast<std::uint64_t>(image));
    std::string bytes;
    for (int i = 0; i < 10; ++i) bytes += test::random_bytes(random, kWrite);
    return bytes;
  }

  // Leaves what a kill leaves: a journal of thousands of records, none of it in the tables.
  void make_long_journal(const std::string& store) {
    const std::string live = path("live");
    ASSERT_TRUE(Engine::initialize(live, test::test_credential()));
    auto opened = Engine::open(live, test::test_credential());
    ASSERT_TRUE(opened) << test::error_text(opened);
    Engine& engine = **opened;
    ASSERT_TRUE(engine.keys().create("tenant", kRootUser));
    const auto folder = engine.names().make_directory(kRootIno, "folder", 0755, kRootUser);
    ASSERT_TRUE(folder);
    ASSERT_TRUE(engine.names().setxattr(folder->ino, "user.rekeyfs.key", "tenant", XattrMode::either, kRootUser));
    for (int image = 0; image < kImages; ++image) {
      auto created = engine.files().create(folder->ino, "image-" + std::to_string(image), 0600, O_RDWR, kRootUser);
      ASSERT_TRUE(created) << test::error_text(created);
      const std::string bytes = content_of(image);
      for (std::size_t at = 0; at < bytes.size(); at += 5000)
        ASSERT_TRUE(engine.files().write(*created->file, at, as_bytes(std::string_view(bytes).substr(at, 5000))));
      ASSERT_TRUE(engine.files().flush(*created->file));
    }
    test::copy_as_killed(live, store);
    ASSERT_TRUE(engine.close());
  }

  // How long opening takes when nobody interferes; the child is killed after `patience`.
  static Clock::duration open_in_child(const std::string& store, Clock::duration patience) {
    const auto begun = Clock::now();
    const pid_t child = fork();
    if (child == 0) {
      const auto opened = Engine::open(store, test::test_credential());
      _exit(opened ? 0 : 1);
    }
    int state = 0;
    while (Clock::now() - begun < patience) {
      if (waitpid(child, &state, WNOHANG) == child) {
        EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << "the store did not open";
        return Clock::now() - begun;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    ::kill(child, SIGKILL);
    waitpid(child, &state, 0);
    return patience;
  }

  void verify(const std::string& store) {
    auto opened = Engine::open(store, test::test_credential());
    ASSERT_TRUE(opened) << test::error_text(opened);
    Engine& engine = **opened;
    const auto folder = engine.names().lookup(kRootIno, "folder");
    ASSERT_TRUE(folder);
    for (int image = 0; image < kImages; ++image) {
      const auto found = engine.names().lookup(folder->ino, "image-" + std::to_string(image));
      ASSERT_TRUE(found) << image;
      auto file = engine.files().open(found->ino, O_RDONLY, kRootUser);
      ASSERT_TRUE(file);
      const std::string expected = content_of(image);
      std::string got(expected.size() + 1, 'x');
      const auto size = engine.files().read(**file, 0, {reinterpret_cast<std::byte*>(got.data()), got.size()});
      ASSERT_TRUE(size) << test::error_text(size);
      got.resize(*size);
      EXPECT_TRUE(got == expected) << "image " << image;
    }
    EXPECT_TRUE(engine.close());
  }
};

TEST_F(RecoveryKillTest, OpeningIsKilledAgainAndAgain) {
  make_long_journal(path("killed"));
  std::filesystem::copy(path("killed"), path("timed"), std::filesystem::copy_options::recursive);
  const Clock::duration whole = open_in_child(path("timed"), std::chrono::seconds(60));
  std::mt19937_64 random(1);
  for (int round = 0; round < 3; ++round) {
    const std::string store = path("store-" + std::to_string(round));
    std::filesystem::copy(path("killed"), store, std::filesystem::copy_options::recursive);
    for (int kill = 0; kill < 12; ++kill) (void)open_in_child(store, whole * (random() % 100) / 100);
    verify(store);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace rekeyfs
