// StoreLock: one process at a time, and a message that names the process.
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "engine/io/store_lock.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::io {
namespace {

class StoreLockTest : public test::TempDirectory {
 public:
  ~StoreLockTest() override {
    if (child_ > 0) kill_child();
  }

 protected:
  // A process that holds the lock until it is killed, under a name of its own, as does a child of it for so long after;
  // returns once it holds it.
  void start_holder(std::optional<std::chrono::milliseconds> child_keeps_it = {}) {
    int ready[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    child_ = ::fork();
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      ::prctl(PR_SET_NAME, "lock holder");
      program_invocation_name[0] = '\x1b';  // of its command line
      auto lock = StoreLock::acquire(directory());
      const bool in_child = child_keeps_it && ::fork() == 0;
      if (!in_child) (void)!::write(ready[1], lock ? "y" : "n", 1);
      if (in_child) std::this_thread::sleep_for(*child_keeps_it);
      if (in_child) ::_exit(0);
      for (;;) ::pause();
    }
    char answer = 0;
    ASSERT_EQ(::read(ready[0], &answer, 1), 1);
    ::close(ready[0]);
    ::close(ready[1]);
    ASSERT_EQ(answer, 'y');
  }
  void kill_child() {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  std::string lock_text() const {
    std::string line;
    std::ifstream in(path("lock"));
    std::getline(in, line);
    return line;
  }
  std::string own_command() const {
    std::string line;
    std::ifstream in("/proc/self/comm");
    std::getline(in, line);
    return line;
  }

  pid_t child_ = -1;
};

TEST_F(StoreLockTest, FileNamesTheHolderAndIsPrivate) {
  auto lock = StoreLock::acquire(directory());
  ASSERT_TRUE(lock) << describe(lock.error());
  EXPECT_TRUE(lock_text().starts_with(std::to_string(::getpid()) + " " + own_command()));
  struct stat facts {};
  ASSERT_EQ(::stat(path("lock").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777, 0600u);
}

TEST_F(StoreLockTest, SecondIsRefusedAndToldWhoHoldsIt) {
  start_holder();
  auto second = StoreLock::acquire(directory());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::locked);
  const std::string& message = second.error().message;
  EXPECT_NE(message.find("process " + std::to_string(child_) + " ("), std::string::npos) << message;
  std::string program = std::filesystem::read_symlink("/proc/self/exe").filename();
  EXPECT_NE(message.find(program), std::string::npos) << message;
  EXPECT_NE(message.find("rekeyfs umount"), std::string::npos) << message;
  EXPECT_EQ(message.find('\x1b'), std::string::npos) << "it would move a terminal's cursor";
}

TEST_F(StoreLockTest, RefusedInTheSameProcessToo) {
  auto first = StoreLock::acquire(directory());
  ASSERT_TRUE(first);
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::locked);
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::locked) << "a refusal must not free the lock";
}

TEST_F(StoreLockTest, DiesWithItsProcess) {
  start_holder();
  kill_child();
  auto lock = StoreLock::acquire(directory());
  ASSERT_TRUE(lock) << describe(lock.error());
  EXPECT_TRUE(lock_text().starts_with(std::to_string(::getpid()) + " "));
}

// One that is killed while it opens a store may just have forked.
TEST_F(StoreLockTest, AChildOfADeadHolderIsWaitedFor) {
  start_holder(std::chrono::milliseconds(200));
  kill_child();
  auto lock = StoreLock::acquire(directory());
  EXPECT_TRUE(lock) << describe(lock.error());
}

TEST_F(StoreLockTest, AChildOfADeadHolderIsNotWaitedForForEver) {
  start_holder(std::chrono::seconds(2));
  kill_child();
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::locked);
}

TEST_F(StoreLockTest, IsFreedWithItsOwner) {
  std::optional<StoreLock> moved;
  {
    auto lock = StoreLock::acquire(directory());
    ASSERT_TRUE(lock);
    moved.emplace(std::move(*lock));
  }
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::locked) << "it moved with its owner";
  moved.reset();
  EXPECT_TRUE(StoreLock::acquire(directory()));
}

TEST_F(StoreLockTest, TwoStoresDoNotDisturbEachOther) {
  std::filesystem::create_directory(path("other"));
  auto first = StoreLock::acquire(directory());
  auto second = StoreLock::acquire(path("other"));
  EXPECT_TRUE(first);
  EXPECT_TRUE(second);
}

// A holder that could not write its name (or is still about to) must not be taken for the one before it.
TEST_F(StoreLockTest, StaleOrHostileTextNamesNobody) {
  start_holder();
  for (const std::string& text :
       {std::string("999999999 rekeyfs\n"), std::string("1 lock holder\n"), std::string(), std::string("garbage"),
        std::string("../../etc/passwd x\n"), std::string(" x\n"), std::string(4096, '9'), std::string(64, '\0'),
        std::to_string(child_) + " another name\n"}) {
    std::ofstream(path("lock"), std::ios::trunc) << text;
    auto second = StoreLock::acquire(directory());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::locked);
    EXPECT_NE(second.error().message.find("another process"), std::string::npos) << second.error().message;
  }
  std::ofstream(path("lock"), std::ios::trunc) << child_ << " lock holder\n";
  EXPECT_NE(StoreLock::acquire(directory()).error().message.find(std::to_string(child_)), std::string::npos);
}

TEST_F(StoreLockTest, ShorterNameReplacesALongerOne) {
  std::ofstream(path("lock")) << "4194304 fifteen letters\nand then some more";
  start_holder();
  const Error error = StoreLock::acquire(directory()).error();
  EXPECT_NE(error.message.find("process " + std::to_string(child_) + " ("), std::string::npos) << error.message;
}

TEST_F(StoreLockTest, MissingDirectoryIsNotFound) {
  EXPECT_EQ(StoreLock::acquire(path("missing")).error().code, Errc::not_found);
}

TEST_F(StoreLockTest, PlantedThingsAreRefused) {
  std::ofstream(path("target")) << "not yours";
  std::filesystem::create_symlink("target", path("lock"));
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::corrupt);
  std::ifstream in(path("target"));
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "not yours");
  std::filesystem::remove(path("lock"));
  ASSERT_EQ(::mkfifo(path("lock").c_str(), 0600), 0);
  EXPECT_EQ(StoreLock::acquire(directory()).error().code, Errc::corrupt);
}

TEST_F(StoreLockTest, DescriptorIsClosedOnExec) {
  auto lock = StoreLock::acquire(directory());
  ASSERT_TRUE(lock);
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry.path(), gone) != path("lock")) continue;
    ++found;
    EXPECT_NE(::fcntl(std::stoi(entry.path().filename()), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(found, 1);
}

}  // namespace
}  // namespace rekeyfs::io
