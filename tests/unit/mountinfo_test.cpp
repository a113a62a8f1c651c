// The parser of /proc/self/mountinfo.
#include <gtest/gtest.h>

#include "fs/mountinfo.h"

namespace rekeyfs::fs {
namespace {

TEST(MountinfoTest, ReadsMountPointTypeAndSource) {
  std::vector<MountEntry> mounts = parse_mountinfo(
      "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "40 21 0:35 / /mnt/images rw,nosuid shared:7 master:2 - fuse.rekeyfs /srv/store rw,user_id=0\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].type, "ext4");
  EXPECT_FALSE(mounts[0].is_rekeyfs());
  EXPECT_EQ(mounts[1].mountpoint, "/mnt/images");
  EXPECT_EQ(mounts[1].source, "/srv/store");
  EXPECT_TRUE(mounts[1].is_rekeyfs());
  EXPECT_TRUE(mounts[1].is_whole());
}

TEST(MountinfoTest, ABindMountOfADirectoryIsNotTheWhole) {
  const std::vector<MountEntry> mounts = parse_mountinfo("41 21 0:35 /public\\040images /srv rw - fuse.rekeyfs /srv/store rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].root, "/public images");
  EXPECT_FALSE(mounts[0].is_whole());
}

TEST(MountinfoTest, NamesAreUnescaped) {
  std::vector<MountEntry> mounts = parse_mountinfo("40 21 0:35 / /mnt/a\\040b\\134c rw - fuse.rekeyfs /s\\011t rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].mountpoint, "/mnt/a b\\c");
  EXPECT_EQ(mounts[0].source, "/s\tt");
  EXPECT_EQ(mounts[0].device, "0:35");
}

TEST(MountinfoTest, LinesOfAnotherShapeArePassedOver) {
  EXPECT_TRUE(parse_mountinfo("").empty());
  EXPECT_TRUE(parse_mountinfo("nonsense\n40 21 0:35 / /mnt rw - ext4\n40 21 0:35 / /mnt rw ext4 /dev/x rw\n").empty());
}

}  // namespace
}  // namespace rekeyfs::fs
