// The mount at a path, and resolving paths.
#include <gtest/gtest.h>

#include "tools/mounts.h"

namespace rekeyfs::tools {
namespace {

TEST(MountsTest, TheRootIsAMountOfSomeOtherType) {
  std::optional<Mount> root = mount_at("/").value();
  ASSERT_TRUE(root);
  EXPECT_FALSE(root->is_rekeyfs());
  EXPECT_FALSE(mount_at("/proc/self").value());
}

TEST(MountsTest, AbsolutePathsFollowLinksAndNameWhatIsMissing) {
  EXPECT_EQ(absolute_path("/proc/../etc/").value(), "/etc");
  Outcome<std::string> missing = absolute_path("/etc/no-such-file");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ExitCode::not_found);
}

}  // namespace
}  // namespace rekeyfs::tools
