// The traffic with /dev/fuse, on a mount that this test serves request by request.
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/device.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs::fs {
namespace {

class DeviceTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
    descriptor_ = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
    ASSERT_GE(descriptor_, 0) << std::strerror(errno);
    const std::string options = "fd=" + std::to_string(descriptor_) + ",rootmode=40000,user_id=0,group_id=0";
    ASSERT_EQ(::mount("rekeyfs-test", directory().c_str(), "fuse", 0, options.c_str()), 0) << std::strerror(errno);
    mounted_ = true;
  }
  void TearDown() override {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (mounted_) ::umount2(directory().c_str(), MNT_DETACH);
  }

  ssize_t receive() { return device_.receive(descriptor_, buffer_.data(), buffer_.size()); }

  // Answers INIT, asking for `flags` on top.
  void initialize(std::uint32_t flags) {
    ASSERT_GT(receive(), 0);
    fuse_in_header request;
    std::memcpy(&request, buffer_.data(), sizeof(request));
    ASSERT_EQ(request.opcode, static_cast<std::uint32_t>(FUSE_INIT));
    fuse_init_out init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = FUSE_KERNEL_MINOR_VERSION;
    init.max_write = 4096;
    init.flags = flags;
    fuse_out_header header{.len = sizeof(header) + sizeof(init), .error = 0, .unique = request.unique};
    std::array<iovec, 2> pieces{iovec{&header, sizeof(header)}, iovec{&init, sizeof(init)}};
    ASSERT_EQ(device_.send(descriptor_, pieces.data(), 2), static_cast<ssize_t>(header.len));
  }

  // The kernel's number of the connection is the minor one of the mount's device.
  std::string connection() const {
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
      std::istringstream fields(line);
      std::string id, parent, device, root, mountpoint;
      fields >> id >> parent >> device >> root >> mountpoint;
      if (mountpoint == directory()) return device.substr(device.find(':') + 1);
    }
    return "";
  }

  Device device_;
  int descriptor_ = -1;
  bool mounted_ = false;
  std::array<std::byte, 1 << 17> buffer_{};
};

// A loop that takes it for a failure would end the daemon with an error after a good unmount.
TEST_F(DeviceTest, AnAbortedSessionHasEndedLikeAnUnmountedOne) {
  ASSERT_NO_FATAL_FAILURE(initialize(FUSE_ABORT_ERROR));  // with it the kernel tells an abort from an unmount
  const std::string control = directory() + ".control";
  ASSERT_EQ(::mkdir(control.c_str(), 0700), 0);
  const bool visible = ::mount("fusectl", control.c_str(), "fusectl", 0, nullptr) == 0;
  if (visible) {
    std::ofstream(control + "/" + connection() + "/abort") << "1";
    ::umount(control.c_str());
  }
  ::rmdir(control.c_str());
  ASSERT_TRUE(visible);
  EXPECT_EQ(receive(), -1);
  EXPECT_EQ(errno, ENODEV) << std::strerror(errno);
}

}  // namespace
}  // namespace rekeyfs::fs
