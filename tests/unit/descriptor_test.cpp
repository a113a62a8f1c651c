// Descriptor: one owner, closed once.
#include "engine/base/descriptor.h"

#include <gtest/gtest.h>

#include <fcntl.h>

#include <utility>

namespace rekeyfs {
namespace {

Descriptor open_null() { return Descriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
bool is_open(int number) { return ::fcntl(number, F_GETFD) >= 0; }

TEST(DescriptorTest, IsClosedWithItsOwner) {
  int number = -1;
  {
    const Descriptor owner = open_null();
    ASSERT_TRUE(owner);
    number = owner.get();
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(DescriptorTest, AssignmentClosesWhatWasHeldAtOnce) {
  Descriptor target = open_null(), source = open_null();
  const int closed = target.get(), moved = source.get();
  target = std::move(source);
  EXPECT_EQ(target.get(), moved);
  EXPECT_FALSE(source);
  EXPECT_FALSE(is_open(closed));
  EXPECT_TRUE(is_open(moved));
}

TEST(DescriptorTest, ReleaseGivesItUpWithoutClosing) {
  Descriptor owner = open_null();
  const Descriptor next(owner.release());
  EXPECT_FALSE(owner);
  EXPECT_TRUE(is_open(next.get()));
}

TEST(DescriptorTest, ResetClosesAndTheOwnerStaysUsable) {
  Descriptor owner = open_null();
  const int number = owner.get();
  owner.reset();
  EXPECT_FALSE(owner);
  EXPECT_FALSE(is_open(number));
  owner.reset();
  owner = open_null();
  EXPECT_TRUE(owner);
}

}  // namespace
}  // namespace rekeyfs
