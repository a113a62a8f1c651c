// SlotAllocator: each slot is in exactly one state, and none is lost.
#include "engine/blocks/slot_allocator.h"

#include <gmock/gmock.h>

#include <random>

namespace rekeyfs::blocks {
namespace {

BlockEntry in_slot(Slot slot) {
  BlockEntry entry = BlockEntry::of(BlockState::data);
  entry.slot = slot;
  return entry;
}

std::set<Slot> slots_of(const std::vector<SlotRun>& runs) {
  std::set<Slot> slots;
  for (const SlotRun& run : runs)
    for (std::uint64_t n = 0; n < run.count; ++n) EXPECT_TRUE(slots.insert(run.first + n).second) << "twice";
  return slots;
}

TEST(SlotAllocatorTest, ABlockGoesHomeUnlessItsHomeIsNeeded) {
  SlotAllocator slots(0);
  EXPECT_EQ(*slots.choose(7, {}), 7u);
  EXPECT_EQ(*slots.choose(7, in_slot(7)), kSpillBit) << "in use";
  EXPECT_TRUE(slots.supersede(7, 3));
  EXPECT_FALSE(slots.supersede(7, 4));
  EXPECT_EQ(*slots.choose(7, in_slot(kSpillBit)), kSpillBit | 1) << "in limbo";
  EXPECT_TRUE(slots.begin_punch(3).empty()) << "recovery may start there";
  EXPECT_THAT(slots_of(slots.begin_punch(4)), ::testing::ElementsAre(7));
  EXPECT_EQ(*slots.choose(7, in_slot(kSpillBit)), kSpillBit | 2) << "being punched";
  slots.end_punch();
  EXPECT_EQ(*slots.choose(7, in_slot(kSpillBit)), 7u);
}

TEST(SlotAllocatorTest, IdleSlotsAreUsedAgainAndGivenBackAtRest) {
  SlotAllocator slots(2);
  slots.may_idle();
  slots.supersede(kSpillBit, 1);
  slots.supersede(kSpillBit | 1, 1);
  EXPECT_TRUE(slots.begin_punch(2).empty());
  EXPECT_EQ(*slots.choose(7, in_slot(7)), kSpillBit);
  EXPECT_TRUE(slots.waits_for_flush());
  EXPECT_THAT(slots_of(slots.begin_punch(2)), ::testing::ElementsAre(kSpillBit | 1));
  slots.end_punch();
  EXPECT_FALSE(slots.waits_for_flush());
  EXPECT_EQ(*slots.choose(8, in_slot(8)), kSpillBit | 1) << "punched spill slots come before new ones";
  EXPECT_EQ(slots.next_spill(), 2u);
}

// A write fails while the slots of others are punched, for which no lock is held.
TEST(SlotAllocatorTest, ASlotThatIsAbandonedDuringAPunchIsNotLost) {
  SlotAllocator slots(2);
  slots.supersede(kSpillBit, 1);
  EXPECT_EQ(slots.begin_punch(2).size(), 1u);
  slots.abandon(kSpillBit | 1);
  slots.end_punch();
  EXPECT_TRUE(slots.waits_for_flush());
  EXPECT_THAT(slots_of(slots.begin_punch(2)), ::testing::ElementsAre(kSpillBit | 1));
}

// Room is promised to blocks that were zeroed just now: recovery may need their slots, and their space stays.
TEST(SlotAllocatorTest, KeptSlotsAreNotWrittenTooEarlyAndNotPunched) {
  SlotAllocator slots(0);
  slots.may_idle();
  for (Slot slot = 0; slot < 10; ++slot) slots.supersede(slot, 3);
  slots.keep({2, 6});
  EXPECT_EQ(*slots.choose(4, {}), kSpillBit) << "recovery may need it";
  EXPECT_THAT(slots.unkeep({5, 5}), ::testing::IsEmpty());
  slots.abandon(kSpillBit);  // so that the layer is not at rest
  EXPECT_TRUE(slots.begin_punch(4).empty()) << "the others are idle";
  slots.supersede(kSpillBit | 9, 9);
  slots.begin_punch(4);
  EXPECT_EQ(*slots.choose(4, {}), 4u);
  slots.supersede(kSpillBit | 9, 9);
  slots.begin_punch(10);  // only idle slots are left
  EXPECT_THAT(slots_of(slots.begin_punch(10)), ::testing::IsSupersetOf({0, 1, 5, 6, 7, 8, 9}));
  EXPECT_THAT(slots.unkeep({2, 2}), ::testing::ElementsAre(::testing::AllOf(::testing::Field(&SlotRun::first, 2), ::testing::Field(&SlotRun::count, 2))));
}

TEST(SlotAllocatorTest, AtRestEverySlotIsInUseOrFree) {
  constexpr BlockIndex kBlocks = 40;
  std::mt19937_64 random(7);
  SlotAllocator slots(0);
  slots.may_idle();
  std::vector<BlockEntry> entries(kBlocks);
  std::set<Slot> used, limbo, punching;
  SlotAllocator::Segment segment = 1;
  const auto write = [&](bool fails) {
    const BlockIndex index = random() % kBlocks;
    const Slot slot = *slots.choose(index, entries[index]);
    ASSERT_TRUE(slot == index || (slot & kSpillBit));
    ASSERT_FALSE(used.contains(slot) || limbo.contains(slot) || punching.contains(slot)) << slot;
    if (fails) return slots.abandon(slot);
    if (entries[index].state == BlockState::data) {
      ASSERT_TRUE(slots.supersede(entries[index].slot, segment));
      used.erase(entries[index].slot);
      limbo.insert(entries[index].slot);
    }
    slots.use(slot);
    used.insert(slot);
    entries[index] = in_slot(slot);
  };
  const auto flush = [&](bool changes) {
    ++segment;
    limbo.clear();
    punching = slots_of(slots.begin_punch(segment));
    for (const Slot slot : punching) ASSERT_FALSE(used.contains(slot)) << slot;
    for (int i = 0; changes && i < 10; ++i) write(random() % 3 == 0);
    slots.end_punch();
    punching.clear();
  };
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 30; ++i) write(random() % 3 == 0);
    flush(true);
  }
  for (int round = 0; round < 3; ++round) flush(false);
  EXPECT_FALSE(slots.waits_for_flush());
  // Every spill slot there ever was is in use or comes again before a new one.
  const std::uint64_t spilled = slots.next_spill();
  for (std::uint64_t used_spill = static_cast<std::uint64_t>(std::distance(used.lower_bound(kSpillBit), used.end())); used_spill < spilled; ++used_spill)
    ASSERT_LT(*slots.choose(0, in_slot(0)) & ~kSpillBit, spilled);
  EXPECT_EQ(*slots.choose(0, in_slot(0)), kSpillBit | spilled);
}

}  // namespace
}  // namespace rekeyfs::blocks
