// SharedMutex: a writer gets the lock although readers overlap continuously.
#include "engine/base/mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;

TEST(SharedMutexTest, SteadyReadersDoNotKeepAWriterOut) {
  SharedMutex mutex;
  std::atomic<bool> written{false};
  const auto give_up = std::chrono::steady_clock::now() + 10s;
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 8; ++reader)
    readers.emplace_back([&] {
      while (!written && std::chrono::steady_clock::now() < give_up) {
        SharedLock lock(mutex);
        std::this_thread::sleep_for(2ms);  // so that there is always one
      }
    });
  std::this_thread::sleep_for(20ms);
  std::thread writer([&] {
    UniqueLock lock(mutex);
    written = std::chrono::steady_clock::now() < give_up;
  });
  writer.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_TRUE(written);
}

TEST(SharedMutexTest, ReadersShareAndAWriterExcludes) {
  SharedMutex mutex;
  std::atomic<int> inside{0};
  std::atomic<bool> met{false}, mixed{false};
  std::vector<std::thread> threads;
  for (int reader = 0; reader < 2; ++reader)
    threads.emplace_back([&] {
      SharedLock lock(mutex);
      ++inside;
      for (int wait = 0; wait < 5000 && inside < 2; ++wait) std::this_thread::sleep_for(1ms);
      met = inside == 2;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(met);
  inside = 0;
  threads.clear();
  for (int writer = 0; writer < 4; ++writer)
    threads.emplace_back([&] {
      for (int turn = 0; turn < 1000; ++turn) {
        UniqueLock lock(mutex);
        if (++inside != 1) mixed = true;
        --inside;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(mixed);
}

}  // namespace
}  // namespace rekeyfs
