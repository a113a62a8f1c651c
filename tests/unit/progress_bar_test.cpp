// Progress bars, and the numbers and names in them.
#include <fstream>
#include <iterator>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/descriptor.h"
#include "engine/base/utf8.h"
#include "tests/support/temp_directory.h"
#include "tools/columns.h"
#include "tools/human.h"
#include "tools/progress_bar.h"
#include "tools/table.h"

namespace rekeyfs::tools {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

Progress half_way() {
  Progress progress;
  progress.path = "/tenant-a/debian.qcow2";
  progress.state = "replicating";
  progress.percent = 50.0;
  progress.bytes_done = kGiB;
  progress.bytes_total = 2 * kGiB;
  progress.bytes_per_second = 512.0 * 1024 * 1024;
  progress.seconds_left = 2;
  return progress;
}

TEST(HumanTest, Bytes) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1024), "1.0 KiB");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text(1024 * 1024 - 1), "1.0 MiB");  // not "1024.0 KiB"
  EXPECT_EQ(bytes_text(16 * 1024 * kGiB), "16.0 TiB");
  EXPECT_EQ(bytes_text(~std::uint64_t{0}), "16.0 EiB");
}

TEST(HumanTest, RatesAndDurations) {
  EXPECT_EQ(rate_text(0), "-");
  EXPECT_EQ(rate_text(2048), "2.0 KiB/s");
  EXPECT_EQ(duration_text(0), "0:00");
  EXPECT_EQ(duration_text(0.2), "0:01");
  EXPECT_EQ(duration_text(754), "12:34");
  EXPECT_EQ(duration_text(3723), "1:02:03");
  EXPECT_EQ(duration_text(-1), "0:00");
}

TEST(HumanTest, PercentIsRoundedDown) {
  EXPECT_EQ(percent_text(0), "0.0 %");
  EXPECT_EQ(percent_text(42.3), "42.3 %");
  EXPECT_EQ(percent_text(99.99), "99.9 %");
  EXPECT_EQ(percent_text(100), "100.0 %");
}

TEST(HumanTest, MomentsLoseTheirFraction) {
  EXPECT_EQ(moment_text("2026-01-31T12:00:01.123456789Z"), "2026-01-31 12:00:01 UTC");
  EXPECT_EQ(moment_text(""), "");
  EXPECT_EQ(local_moment_text("no time"), "no time");
  EXPECT_EQ(user_text(0), "root");
  EXPECT_EQ(user_text(64999), "uid 64999");
}

TEST(HumanTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31mb\n\t\x7f"), "a?[31mb???");
  EXPECT_EQ(printable("a\xc2\x9b"
                      "31m"),
            "a?31m");  // U+009B is CSI in one character
  EXPECT_EQ(printable("größe"), "größe");
}

TEST(ColumnsTest, CutsAndPads) {
  EXPECT_EQ(columns_of("größe"), 5U);
  EXPECT_EQ(pad("größe", 7), "größe  ");
  EXPECT_EQ(pad_left("7", 3), "  7");
  EXPECT_EQ(pad("long", 2), "long");
  EXPECT_EQ(fit("abcdef", 6), "abcdef");
  EXPECT_EQ(fit("abcdef", 4), "…def");
  EXPECT_EQ(fit("äöüß", 3), "…üß");
  EXPECT_EQ(fit("abc", 0), "");
  EXPECT_EQ(cut("größe", 3), "grö");
  EXPECT_EQ(cut("abc", 3), "abc");
  EXPECT_EQ(cut("abc", 0), "");
}

TEST(ColumnsTest, WideCharactersTakeTwoAndCombiningOnesNone) {
  EXPECT_EQ(columns_of("日本語"), 6U);
  EXPECT_EQ(columns_of("💾"), 2U);
  EXPECT_EQ(columns_of("e\u0301"), 1U);
  EXPECT_EQ(columns_of("\xff\xfe"), 2U) << "bytes that are no UTF-8 are shown as one mark each";
  EXPECT_EQ(pad("日本", 6), "日本  ");
}

TEST(ColumnsTest, WhatIsCutNeverTakesMoreRoomAndStaysUtf8) {
  const std::string name = "画像/e\u0301t\u0308é-💾.img";
  for (std::size_t columns = 0; columns <= columns_of(name); ++columns) {
    for (const std::string& text : {fit(name, columns), cut(name, columns)}) {
      EXPECT_LE(columns_of(text), columns) << text;
      EXPECT_TRUE(is_utf8(text)) << columns;
    }
  }
  EXPECT_EQ(fit("日本語", 5), "…本語");
  EXPECT_EQ(fit("日本語", 4), "…語") << "half a character is not shown";
  EXPECT_EQ(fit("ae\u0301b", 2), "…b") << "no accent without its letter";
  EXPECT_EQ(cut("日本語", 3), "日");
  EXPECT_EQ(cut("e\u0301b", 1), "e\u0301");
}

TEST(TableTest, ColumnsAreAlignedAndNamesMadePrintable) {
  Table table({"NAME", "SIZE"});
  table.add({"größe", "1"});
  table.add({"\x1b", "22"});
  EXPECT_EQ(table.text(), "NAME   SIZE\ngröße  1\n?      22\n");
}

TEST(ProgressBarTest, FillsTheLineAndNeverMore) {
  for (std::size_t columns = 1; columns <= 250; ++columns) {
    EXPECT_LE(columns_of(bar_line(half_way(), columns)), columns);
    Progress failed = half_way();
    failed.state = "error";
    failed.error = "the key tenant-a is disabled; enable it with: rekeyfs key enable tenant-a";
    EXPECT_LE(columns_of(bar_line(failed, columns)), columns);
  }
}

TEST(ProgressBarTest, ShowsNameBarAndFigures) {
  std::string line = bar_line(half_way(), 120);
  EXPECT_THAT(line, StartsWith("/tenant-a/debian.qcow2  ["));
  EXPECT_THAT(line, HasSubstr("50.0 %"));
  EXPECT_THAT(line, HasSubstr("1.0 GiB of 2.0 GiB"));
  EXPECT_THAT(line, HasSubstr("512.0 MiB/s"));
  EXPECT_THAT(line, EndsWith("0:02 left"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '#'), std::count(line.begin(), line.end(), '.') - 5);  // 4 + name's
}

TEST(ProgressBarTest, ANarrowTerminalKeepsTheFigures) {
  EXPECT_THAT(bar_line(half_way(), 60), HasSubstr("50.0 %"));
  EXPECT_THAT(bar_line(half_way(), 60), Not(HasSubstr("#")));
}

TEST(ProgressBarTest, AFailureShowsItsReasonInPlaceOfABar) {
  Progress failed = half_way();
  failed.state = "error";
  failed.error = "the key is disabled";
  EXPECT_THAT(bar_line(failed, 120), HasSubstr("error: the key is disabled"));
  EXPECT_THAT(bar_line(failed, 120), Not(HasSubstr("[")));
  EXPECT_THAT(plain_line(failed), HasSubstr("error: the key is disabled"));
}

TEST(ProgressBarTest, UnknownRateAndTimeAreLeftOut) {
  Progress progress = half_way();
  progress.bytes_per_second = 0;
  progress.seconds_left.reset();
  EXPECT_THAT(plain_line(progress), EndsWith("1.0 GiB of 2.0 GiB"));
}

TEST(ProgressBarTest, IsMadeFromTheFactsOfAnAnswer) {
  nlohmann::json answer{{"replications",
                         {{{"path", "/x"},
                           {"state", "error"},
                           {"error", "why"},
                           {"percent", 12.5},
                           {"bytes_done", 1},
                           {"bytes_total", 8},
                           {"bytes_per_second", 0.0},
                           {"seconds_left", nullptr}}}}};
  std::vector<Progress> list = progress_list_of(answer);
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].path, "/x");
  EXPECT_TRUE(list[0].failed());
  EXPECT_EQ(list[0].percent, 12.5);
  EXPECT_FALSE(list[0].seconds_left);
}

class BarScreenTest : public test::TempDirectory {
 protected:
  std::string written() const {
    std::ifstream file(path("screen"));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Descriptor file_{::open(path("screen").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)};
  BarScreen screen_{file_.get()};
};

TEST_F(BarScreenTest, RedrawsItsOwnLinesAndNoMore) {
  screen_.show({}, {"one", "two"});
  std::string first = written();
  EXPECT_EQ(first, "\x1b[2Kone\n\x1b[2Ktwo\n\x1b[J");
  screen_.show({"one finished"}, {"two"});
  std::string second = written().substr(first.size());
  EXPECT_EQ(second, "\r\x1b[2A\x1b[2Kone finished\n\x1b[2Ktwo\n\x1b[J");
  screen_.show({}, {});
  EXPECT_EQ(written().substr(first.size() + second.size()), "\r\x1b[1A\x1b[J");
}

TEST_F(BarScreenTest, WhatIsNoTerminalHasTheUsualSize) {
  EXPECT_EQ(screen_.columns(), 80U);
  EXPECT_EQ(screen_.rows(), 24U);
}

}  // namespace
}  // namespace rekeyfs::tools
