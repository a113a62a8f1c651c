// The processes that keep a mount busy, found in a simulated /proc.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temp_directory.h"
#include "tools/holders.h"

namespace rekeyfs::tools {
namespace {

namespace stdfs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::Field;

class HoldersTest : public test::TempDirectory {
 protected:
  // A process with the link `name` to `target`.
  std::string add(int process, const std::string& name, const std::string& target) {
    const std::string place = path(std::to_string(process));
    stdfs::create_directories(place + "/fd");
    stdfs::create_symlink(target, place + "/" + name);
    std::ofstream(place + "/comm") << "command-" << process << "\n";
    return place;
  }
};

TEST_F(HoldersTest, WhoeverHasSomethingAtOrBelowTheMountPoint) {
  add(5'000'001, "cwd", "/mnt/images");
  add(5'000'002, "fd/7", "/mnt/images/a/b");
  add(5'000'003, "exe", "/mnt/images/program");
  add(5'000'004, "root", "/mnt/images-too");
  add(5'000'005, "fd/0", "/mnt");
  const std::vector<Holder> holders = holders_of("/mnt/images", directory());
  EXPECT_THAT(holders, ElementsAre(Field(&Holder::process, 5'000'001), Field(&Holder::process, 5'000'002),
                                   Field(&Holder::process, 5'000'003)));
  EXPECT_EQ(holders.at(1).command, "command-5000002");
}

TEST_F(HoldersTest, AProcessThatCannotBeLookedAtKeepsNobodyWaiting) {
  add(5'000'001, "cwd", "/mnt/images");
  const std::string stuck = add(5'000'002, "cwd", "/mnt/images");
  stdfs::remove(stuck + "/comm");
  ASSERT_EQ(::mkfifo((stuck + "/comm").c_str(), 0600), 0);  // opening it waits for a writer
  const auto started = std::chrono::steady_clock::now();
  const std::vector<Holder> holders = holders_of("/mnt/images", directory());
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(20));
  EXPECT_THAT(holders, ElementsAre(Field(&Holder::process, 5'000'001)));
}

}  // namespace
}  // namespace rekeyfs::tools
