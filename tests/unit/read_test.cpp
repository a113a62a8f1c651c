// Reading to the end: short reads, signals, silence and time limits.
#include "engine/base/read.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "engine/base/descriptor.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

struct Pipe {
  explicit Pipe(int flags = O_CLOEXEC) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, flags), 0);
    in = Descriptor(ends[0]);
    out = Descriptor(ends[1]);
  }
  void write(std::string_view text) const {
    EXPECT_EQ(::write(out.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  Descriptor in, out;
};

TEST(ReadTest, FullGoesOnAfterShortReads) {
  Pipe pipe;
  std::thread writer([&] {
    for (const char* part : {"ab", "cde", "f"}) {
      pipe.write(part);
      std::this_thread::sleep_for(5ms);
    }
  });
  std::array<std::byte, 6> out{};
  const auto got = read_full(pipe.in.get(), out);
  writer.join();
  ASSERT_TRUE(got);
  EXPECT_EQ(as_text(out), "abcdef");
}

TEST(ReadTest, FullTellsOfAnEarlyEndAndOfAnError) {
  Pipe pipe;
  pipe.write("abc");
  pipe.out.reset();
  std::array<std::byte, 6> out{};
  EXPECT_EQ(read_full(pipe.in.get(), out), 3u);
  const auto refused = read_full(-1, out);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::bad_handle);
}

TEST(ReadTest, ToEndReadsMoreThanOnePart) {
  Pipe pipe;
  const std::string text(30'000, 'x');
  pipe.write(text);
  pipe.out.reset();
  EXPECT_EQ(read_to_end(pipe.in.get()), text);
}

TEST(ReadTest, ToEndTakesWhatIsThereWhereItWouldBlock) {
  Pipe pipe(O_CLOEXEC | O_NONBLOCK);
  EXPECT_EQ(read_to_end(pipe.in.get()), "");
  pipe.write("now");
  EXPECT_EQ(read_to_end(pipe.in.get()), "now");
}

TEST(ReadTest, ASignalDoesNotEndIt) {
  struct sigaction ignore_it {};
  ignore_it.sa_handler = [](int) {};  // without SA_RESTART: calls end with EINTR
  struct sigaction before {};
  ASSERT_EQ(::sigaction(SIGUSR1, &ignore_it, &before), 0);
  Pipe pipe;
  std::atomic<bool> done{false};
  std::string text;
  std::thread reader([&] {
    text = read_to_end(pipe.in.get());
    done = true;
  });
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(5ms);
    ::pthread_kill(reader.native_handle(), SIGUSR1);
  }
  EXPECT_FALSE(done);
  pipe.write("after the signals");
  pipe.out.reset();
  reader.join();
  ::sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(text, "after the signals");
}

TEST(ReadTest, AWriterThatStaysSilentIsNotWaitedForForEver) {
  Pipe pipe;
  pipe.write("some");
  const auto begin = Clock::now();
  EXPECT_EQ(read_to_end(pipe.in.get(), 50ms), "some");
  EXPECT_GE(Clock::now() - begin, 50ms);
  EXPECT_LT(Clock::now() - begin, 10s);
}

TEST(ReadTest, WithinItsTimeItEndsWithTheInput) {
  Pipe pipe;
  pipe.write("all");
  pipe.out.reset();
  const auto begin = Clock::now();
  EXPECT_EQ(read_to_end(pipe.in.get(), 60s), "all");
  EXPECT_LT(Clock::now() - begin, 30s);
}

}  // namespace
}  // namespace rekeyfs
