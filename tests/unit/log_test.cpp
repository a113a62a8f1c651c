// The log: what a line may be made of, and how many lines a source may write.
#include <algorithm>
#include <memory>
#include <sstream>

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include "engine/base/log.h"
#include "engine/base/log_limit.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using log::LogLimit;

TEST(LogTest, ALineStaysALine) {
  EXPECT_EQ(log::on_one_line("a name"), "a name");
  EXPECT_EQ(log::on_one_line("a\nb\r\x1b[31m\x7f\t"), "a\\nb\\x0d\\x1b[31m\\x7f\\x09");
  EXPECT_EQ(log::on_one_line("\xc3\xa4\xc2\xa0"), "\xc3\xa4\xc2\xa0") << "letters stay what they are";
  EXPECT_EQ(log::on_one_line("\xc2\x9b"), "\xc2\\x9b") << "a C1 control character";
}

TEST(LogTest, ASourceThatWritesTooMuchIsCutShort) {
  LogLimit limit;
  const int one = 0, other = 0;
  auto now = LogLimit::Clock::now();
  unsigned written = 0;
  for (int i = 0; i < 1000; ++i) written += limit.admit(&one, now) ? 1 : 0;
  EXPECT_EQ(written, LogLimit::kBurst);
  EXPECT_EQ(limit.admit(&other, now), 0U) << "another source is not concerned";
  now += LogLimit::kInterval;
  EXPECT_EQ(limit.admit(&one, now), 1000 - LogLimit::kBurst);
  EXPECT_EQ(limit.admit(&one, now), std::nullopt);
  now += 2 * LogLimit::kBurst * LogLimit::kInterval;
  written = 0;
  for (int i = 0; i < 1000; ++i) written += limit.admit(&one, now) ? 1 : 0;
  EXPECT_EQ(written, LogLimit::kBurst);
}

TEST(LogTest, LinesSayHowManyWereLeftOut) {
  std::ostringstream text;
  auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(text);
  spdlog::default_logger()->sinks().push_back(sink);
  for (int i = 0; i < 200; ++i) log::error("a test writes line {}\nand more", i);
  spdlog::default_logger()->sinks().pop_back();
  const std::string lines = text.str();
  EXPECT_LE(static_cast<unsigned>(std::count(lines.begin(), lines.end(), '\n')), LogLimit::kBurst + 2);
  EXPECT_THAT(lines, ::testing::HasSubstr("a test writes line 0\\nand more"));
}

}  // namespace
}  // namespace rekeyfs
