// UTF-8: valid and invalid sequences, compared with the library that writes our JSON.
#include "engine/base/utf8.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <random>
#include <string>

namespace rekeyfs {
namespace {

TEST(Utf8Test, TakesEachLengthAtItsBounds) {
  for (const char* text : {"", "a", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"})
    EXPECT_TRUE(is_utf8(text)) << text;
  EXPECT_TRUE(is_utf8(std::string_view("a\0b", 3)));
}

TEST(Utf8Test, RefusesWhatIsNoUtf8) {
  for (const char* text : {"\x80", "a\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf",
                           "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80"})
    EXPECT_FALSE(is_utf8(text)) << testing::PrintToString(std::string(text));
}

TEST(Utf8Test, DecodesAndSkipsOneByteThatBeginsNothing) {
  const CodePoint euro = first_code_point("\u20ac!");
  EXPECT_EQ(euro.value, U'\u20ac');
  EXPECT_EQ(euro.size, 3u);
  const CodePoint broken = first_code_point("\xe2\x82!");
  EXPECT_FALSE(broken.valid);
  EXPECT_EQ(broken.size, 1u);
  EXPECT_EQ(broken.value, U'\ufffd');
}

TEST(Utf8Test, AgreesWithTheJsonLibrary) {
  std::mt19937_64 random(1);
  constexpr unsigned char kBytes[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                      0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
  for (int round = 0; round < 50'000; ++round) {
    std::string text;
    for (std::size_t size = random() % 6; size > 0; --size) text += static_cast<char>(kBytes[random() % std::size(kBytes)]);
    bool taken = true;
    try {
      static_cast<void>(nlohmann::json(text).dump());
    } catch (const nlohmann::json::exception&) {
      taken = false;
    }
    ASSERT_EQ(is_utf8(text), taken) << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace rekeyfs
