// ChildProcess: what a child inherits, how its end is detected, and that no child remains.
#include "engine/base/child_process.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "engine/base/pipe.h"
#include "engine/base/read.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;

std::vector<std::string> shell(const std::string& script) { return {"sh", "-c", script}; }

// What a shell with these descriptors besides its output, which is 1, prints.
std::string output_of(Program program) {
  Result<Pipe> pipe = Pipe::create();
  EXPECT_TRUE(pipe);
  program.descriptors.insert(program.descriptors.begin(), {Program::kNothing, pipe->write.get()});
  Result<ChildProcess> child = ChildProcess::start(program);
  EXPECT_TRUE(child);
  pipe->write.reset();
  std::string text = read_to_end(pipe->read.get());
  EXPECT_TRUE(has_succeeded(child->wait()));
  return text;
}

bool is_running(pid_t process) { return ::kill(process, 0) == 0; }

TEST(ChildProcessTest, HasTheDescriptorsItIsGivenAndNoOther) {
  const Descriptor inherited(::open("/", O_RDONLY | O_DIRECTORY));  // as a library may have left it
  ASSERT_TRUE(inherited);
  const Descriptor given(::open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_EQ(output_of({.command = shell("for n in 0 2 3 4 5 6 7 8; do readlink /proc/$$/fd/$n || echo none; done"),
                       .descriptors = {given.get(), Program::kNothing}}),
            "/dev/null\n/usr\n/dev/null\nnone\nnone\nnone\nnone\nnone\n");
}

TEST(ChildProcessTest, DescriptorsChangePlaces) {
  // Each arrives as the number of the other.
  const Descriptor usr(::open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), etc(::open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const int a = std::min(usr.get(), etc.get()), b = std::max(usr.get(), etc.get());
  Program program{.command = shell("readlink /proc/$$/fd/" + std::to_string(a) + " /proc/$$/fd/" + std::to_string(b))};
  const int taken = 2;  // output_of() puts two before them
  for (int target = taken; target <= b; ++target)
    program.descriptors.push_back(target == a ? b : target == b ? a : Program::kNothing);
  EXPECT_EQ(output_of(program), usr.get() < etc.get() ? "/etc\n/usr\n" : "/usr\n/etc\n");
}

TEST(ChildProcessTest, HasTheEnvironmentItIsGiven) {
  ::setenv("REKEYFS_TEST_CHILD", "ours", 1);
  EXPECT_EQ(output_of({.command = shell("echo \"$REKEYFS_TEST_CHILD$MORE\"")}), "ours\n");
  EXPECT_EQ(output_of({.command = shell("echo \"$REKEYFS_TEST_CHILD$MORE\""), .environment = {{"MORE=theirs"}}}), "theirs\n");
  ::unsetenv("REKEYFS_TEST_CHILD");
}

TEST(ChildProcessTest, ASessionOfItsOwnBlocksAndIgnoresNothing) {
  sigset_t term, before;
  ::sigemptyset(&term);
  ::sigaddset(&term, SIGTERM);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &term, &before), 0);
  EXPECT_EQ(output_of({.command = shell("kill -TERM $$; echo stays")}), "stays\n");  // a block is inherited
  Result<ChildProcess> child = ChildProcess::start({.command = shell("kill -TERM $$; sleep 60"), .own_session = true});
  ASSERT_TRUE(child);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const int status = child->wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
}

TEST(ChildProcessTest, AProgramThatIsNotThereIsAnError) {
  const auto child = ChildProcess::start({.command = {"rekeyfs-no-such-program"}});
  ASSERT_FALSE(child);
  EXPECT_EQ(child.error().code, Errc::not_found);
}

TEST(ChildProcessTest, ItsEndIsSeenAndItsStatusKept) {
  auto child = ChildProcess::start({.command = shell("exit 7")});
  ASSERT_TRUE(child);
  EXPECT_TRUE(child->ends_within(30s));
  const int status = child->wait();
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_FALSE(has_succeeded(status));
}

TEST(ChildProcessTest, OneThatTakesTooLongIsKilled) {
  auto child = ChildProcess::start({.command = {"sleep", "60"}});
  ASSERT_TRUE(child);
  EXPECT_FALSE(child->ends_within(20ms));
  child->kill();
  EXPECT_TRUE(child->ends_within(30s));
  const int status = child->wait();
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(ChildProcessTest, IsKilledAndReapedWithItsOwner) {
  Result<Pipe> pipe = Pipe::create();
  ASSERT_TRUE(pipe);
  pid_t process = 0;
  {
    auto child = ChildProcess::fork(
        [](int out) {
          const pid_t self = ::getpid();
          if (::write(out, &self, sizeof self) == sizeof self) ::pause();
          return 0;
        },
        pipe->write);
    ASSERT_TRUE(child);
    ASSERT_EQ(read_full(pipe->read.get(), std::as_writable_bytes(std::span(&process, 1))), sizeof process);
    EXPECT_TRUE(is_running(process));
    ChildProcess moved = std::move(*child);
  }
  EXPECT_FALSE(is_running(process));
}

TEST(ChildProcessTest, AForkEndsWithWhatItsWorkReturnsOrThrows) {
  const Descriptor out(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  auto returns = ChildProcess::fork([](int) { return 3; }, out);
  auto throws = ChildProcess::fork([](int) -> int { throw std::bad_alloc(); }, out);
  ASSERT_TRUE(returns && throws);
  EXPECT_EQ(WEXITSTATUS(returns->wait()), 3);
  EXPECT_EQ(WEXITSTATUS(throws->wait()), 1);
}

TEST(ChildProcessTest, AForkHasItsOutputAndNoOtherDescriptor) {
  const Descriptor inherited(::open("/", O_RDONLY | O_DIRECTORY));
  Result<Pipe> pipe = Pipe::create();
  ASSERT_TRUE(pipe && inherited);
  auto child = ChildProcess::fork(
      [&](int out) {
        const char open_others = ::fcntl(inherited.get(), F_GETFD) >= 0 && inherited.get() != out ? 'y' : 'n';
        return ::write(out, &open_others, 1) == 1 ? 0 : 1;
      },
      pipe->write);
  ASSERT_TRUE(child);
  pipe->write.reset();
  EXPECT_EQ(read_to_end(pipe->read.get()), "n");
  EXPECT_TRUE(has_succeeded(child->wait()));
}

}  // namespace
}  // namespace rekeyfs
