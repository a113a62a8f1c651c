// Limbo, FreeSlots and RangeLock alone.
#include "engine/blocks/limbo.h"

#include <gmock/gmock.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "engine/blocks/range_lock.h"

namespace rekeyfs::blocks {

bool operator==(const SlotRun& a, const SlotRun& b) { return a.first == b.first && a.count == b.count; }

namespace {

using ::testing::ElementsAre;

TEST(LimboTest, ASlotIsInUntilItsSegmentIsPast) {
  Limbo limbo;
  limbo.add(7, 3);
  EXPECT_TRUE(limbo.contains(7));
  EXPECT_FALSE(limbo.contains(6));
  EXPECT_FALSE(limbo.contains(8));
  limbo.take_older_than(3);
  EXPECT_TRUE(limbo.contains(7));
  limbo.take_older_than(4);
  EXPECT_FALSE(limbo.contains(7));
  EXPECT_TRUE(limbo.empty());
}

TEST(LimboTest, WhatIsInAlreadyKeepsItsSegment) {
  Limbo limbo;
  limbo.add(7, 3);
  limbo.add(7, 9);
  EXPECT_EQ(limbo.slots(), 1u);
  limbo.take_older_than(4);
  EXPECT_TRUE(limbo.empty());
}

TEST(LimboTest, NeighboursAreGivenBackAsOneWhateverTheirSegments) {
  Limbo limbo;
  for (Slot slot = 10; slot < 20; ++slot) limbo.add(slot, slot % 3);
  limbo.add(30, 9);
  limbo.add(20, 2);
  EXPECT_THAT(limbo.take_older_than(3), ElementsAre(SlotRun{10, 11}));
}

TEST(LimboTest, ARunIsSplitWhereASlotIsTakenOut) {
  Limbo limbo;
  for (Slot slot = 0; slot < 5; ++slot) limbo.add(slot, 1);
  limbo.remove(2);
  limbo.remove(2);
  limbo.remove(99);
  EXPECT_THAT(Limbo(limbo).take_older_than(2), ElementsAre(SlotRun{0, 2}, SlotRun{3, 2}));
  limbo.remove(0);
  limbo.remove(4);
  EXPECT_THAT(Limbo(limbo).take_older_than(2), ElementsAre(SlotRun{1, 1}, SlotRun{3, 1}));
  EXPECT_EQ(limbo.slots(), 2u);
}

TEST(LimboTest, ARangeGoesOverWithItsSegments) {
  Limbo limbo, other;
  for (Slot slot = 0; slot < 20; ++slot)
    if (slot != 12) limbo.add(slot, slot < 10 ? 1 : 2);
  limbo.move_to(other, {5, 10});
  for (Slot slot = 0; slot < 20; ++slot) {
    EXPECT_EQ(other.contains(slot), slot >= 5 && slot < 15 && slot != 12) << slot;
    EXPECT_EQ(limbo.contains(slot), slot < 5 || slot >= 15) << slot;
  }
  EXPECT_EQ(limbo.slots(), 10u);
  EXPECT_EQ(other.slots(), 9u);
  EXPECT_THAT(other.others_in({4, 20}), ElementsAre(SlotRun{4, 1}, SlotRun{12, 1}, SlotRun{15, 9}));
  EXPECT_THAT(other.take_older_than(2), ElementsAre(SlotRun{5, 5}));
  EXPECT_THAT(limbo.take_older_than(9), ElementsAre(SlotRun{0, 5}, SlotRun{15, 5}));
  EXPECT_THAT(limbo.others_in({3, 4}), ElementsAre(SlotRun{3, 4}));
}

TEST(LimboTest, RandomChangesAreAsInASetOfSlots) {
  std::mt19937_64 random(5);
  Limbo limbo;
  std::map<Slot, std::uint64_t> model;
  for (int step = 0; step < 20000; ++step) {
    const Slot slot = random() % 64;
    const std::uint64_t segment = 1 + static_cast<std::uint64_t>(step) / 1000;
    switch (random() % 8) {
      case 0: limbo.remove(slot), model.erase(slot); break;
      case 1:
        if (random() % 50 == 0) {
          limbo.take_older_than(segment);
          std::erase_if(model, [&](const auto& entry) { return entry.second < segment; });
        }
        break;
      default: limbo.add(slot, segment), model.emplace(slot, segment);
    }
    ASSERT_EQ(limbo.slots(), model.size());
    ASSERT_EQ(limbo.contains(slot), model.contains(slot));
  }
}

TEST(FreeSlotsTest, GivesEachSlotOnceLowestFirst) {
  FreeSlots free;
  EXPECT_FALSE(free.take());
  free.add({10, 2});
  free.add({14, 1});
  free.add({12, 2});  // joins both
  free.add({3, 1});
  std::vector<Slot> taken;
  while (const auto slot = free.take()) taken.push_back(*slot);
  EXPECT_THAT(taken, ElementsAre(3, 10, 11, 12, 13, 14));
}

TEST(FreeSlotsTest, ForgetsWhatWouldTakeTooMuchMemory) {
  FreeSlots free;
  for (std::size_t i = 0; i < FreeSlots::kMaxRuns + 100; ++i) free.add({i * 2, 1});
  std::size_t taken = 0;
  while (free.take()) ++taken;
  EXPECT_EQ(taken, FreeSlots::kMaxRuns);
}

TEST(RangeLockTest, RangesThatOnlyTouchDoNotWait) {
  RangeLock ranges;
  const auto first = ranges.acquire(0, 4);
  const auto second = ranges.acquire(4, 5);
  const auto last = ranges.acquire(5, RangeLock::kEnd);
}

TEST(RangeLockTest, AnOverlappingRangeWaitsUntilTheLastInItsWayIsGone) {
  RangeLock ranges;
  std::atomic<bool> got = false;
  auto first = std::make_unique<RangeLock::Held>(ranges.acquire(0, 4));
  auto second = std::make_unique<RangeLock::Held>(ranges.acquire(6, 7));
  std::thread waiter([&] {
    const auto held = ranges.acquire(3, 7);
    got = true;
  });
  first.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(got);
  second.reset();
  waiter.join();
  EXPECT_TRUE(got);
}

TEST(RangeLockTest, NoTwoHoldersOfOneBlock) {
  RangeLock ranges;
  std::array<std::atomic<int>, 16> holders{};
  std::atomic<bool> shared = false;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 2000; ++i) {
        const BlockIndex first = random() % 16;
        const BlockIndex end = first + 1 + random() % (16 - first);
        const auto held = ranges.acquire(first, end);
        for (BlockIndex block = first; block < end; ++block)
          if (holders[block].fetch_add(1) != 0) shared = true;
        for (BlockIndex block = first; block < end; ++block) holders[block].fetch_sub(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(shared);
}

}  // namespace
}  // namespace rekeyfs::blocks
