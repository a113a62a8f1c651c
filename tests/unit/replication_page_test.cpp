// Pages of the list of replications.
#include <string>

#include <gtest/gtest.h>

#include "fs/commands/replication_page.h"

namespace rekeyfs::fs {
namespace {

std::vector<Replication> list_of(std::uint64_t count, std::size_t path_bytes) {
  std::vector<Replication> list;
  for (std::uint64_t ino = count; ino > 0; --ino) {
    Replication one;
    one.ino = Ino{ino};
    one.path = std::string(path_bytes, 'x');
    list.push_back(std::move(one));
  }
  return list;
}

TEST(ReplicationPage, AFewAreOnePage) {
  const ReplicationPage page = page_after(list_of(3, 10), Ino{});
  ASSERT_EQ(page.replications.size(), 3u);
  EXPECT_EQ(page.replications[0].ino, Ino{1});
  EXPECT_FALSE(page.next);
  EXPECT_TRUE(page_after(list_of(3, 10), Ino{3}).replications.empty());
}

TEST(ReplicationPage, ManyAreSeveralPagesAndEachIsOnOneOfThem) {
  std::uint64_t seen = 0, pages = 0;
  for (std::optional<Ino> next = Ino{}; next; ++pages) {
    const ReplicationPage page = page_after(list_of(4000, 100), *next);
    for (const Replication& one : page.replications) EXPECT_EQ(one.ino.value(), ++seen);
    next = page.next;
  }
  EXPECT_EQ(seen, 4000u);
  EXPECT_GT(pages, 4u);
  EXPECT_LT(pages, 20u);
}

TEST(ReplicationPage, OneThatIsTooLongIsAPageOfItsOwn) {
  EXPECT_EQ(page_after(list_of(2, 2 * ReplicationPage::kMaxTextBytes), Ino{}).next, Ino{1});
}

}  // namespace
}  // namespace rekeyfs::fs
