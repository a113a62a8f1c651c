// Sets the soft limit on descriptors to that of a shell in every test program, so that code that keeps a file open per
// image fails here as it would for a user.
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <algorithm>

namespace rekeyfs::test {
namespace {

constexpr rlim_t kDescriptors = 1024;

class DescriptorLimit final : public ::testing::Environment {
 public:
  void SetUp() override {
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = std::min(limit.rlim_max, kDescriptors);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
};

[[maybe_unused]] const auto* const registered = ::testing::AddGlobalTestEnvironment(new DescriptorLimit);

}  // namespace
}  // namespace rekeyfs::test
