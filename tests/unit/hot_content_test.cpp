// The memory that a hot image needs, with small and with huge pages.
#include "fs/hot_content.h"

#include <gtest/gtest.h>

#include "tests/support/store_user.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::fs {
namespace {

constexpr std::uint64_t kKiB = 1 << 10, kMiB = 1 << 20;
constexpr std::uint64_t kBlock = 16 * kKiB;  // what the engine tells data from holes by

class HotContentTest : public test::TempDirectory {};

TEST_F(HotContentTest, MemoryIsCountedInThePagesThatAreWritten) {
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto opened = test::StoreUser::open(path("store"));
  ASSERT_TRUE(opened) << test::error_text(opened);
  test::StoreUser& user = **opened;
  constexpr std::uint64_t kSize = 9 * kMiB + 100;
  ASSERT_TRUE(user.create("image"));
  for (const std::uint64_t at : {std::uint64_t{0}, kMiB, 3 * kMiB, 9 * kMiB}) ASSERT_TRUE(user.write("image", at, "data"));
  ASSERT_TRUE(user.truncate("image", kSize));
  const auto file = user.engine().files().open(*user.ino("image"), O_RDONLY, kOperator);
  ASSERT_TRUE(file);

  const auto small = memory_needed(user.engine(), **file, kSize, HotMemory::kSmallPage);
  ASSERT_TRUE(small);
  EXPECT_EQ(*small, 3 * kBlock + HotMemory::kSmallPage) << "the last block ends with the image";
  const auto huge = memory_needed(user.engine(), **file, kSize, 2 * kMiB);
  ASSERT_TRUE(huge);
  EXPECT_EQ(*huge, 2 * 2 * kMiB + HotMemory::kSmallPage) << "two in the first page; the last would reach beyond the end";
  EXPECT_TRUE(user.close());
}

}  // namespace
}  // namespace rekeyfs::fs
