// Answers of commands: fetched once, in pieces; bounded for each user.
#include <string>

#include <gtest/gtest.h>

#include "fs/kept_answers.h"

namespace rekeyfs::fs {
namespace {

class KeptAnswersTest : public ::testing::Test {
 protected:
  // The whole answer, fetched in pieces of three bytes; "-" if it is not kept.
  std::string fetch(const KeptAnswer& place) {
    std::string text;
    for (std::size_t total = 1; text.size() < total;) {
      const auto piece = answers_.piece(place, text.size(), 3);
      if (!piece) return piece.error().code == Errc::stale ? "-" : "?";
      total = piece->total;
      text += piece->text;
    }
    return text;
  }

  KeptAnswers answers_{10};
  KeptAnswer one_, two_, three_;
};

TEST_F(KeptAnswersTest, AnAnswerIsFetchedOnce) {
  EXPECT_EQ(fetch(one_), "-");
  answers_.keep(one_, 7, "12345678");
  EXPECT_EQ(fetch(one_), "12345678");
  EXPECT_EQ(fetch(one_), "-");
  answers_.keep(one_, 7, "");
  EXPECT_EQ(answers_.piece(one_, 0, 3)->total, 0u);
}

TEST_F(KeptAnswersTest, ANewAnswerReplacesTheOneOfItsHandle) {
  answers_.keep(one_, 7, "1234567890");
  answers_.keep(one_, 7, "abc");
  answers_.keep(two_, 7, "1234567");
  EXPECT_EQ(fetch(one_), "abc");
  EXPECT_EQ(fetch(two_), "1234567");
}

TEST_F(KeptAnswersTest, AUsersOldestAnswersGoFirstAndNobodyElses) {
  answers_.keep(one_, 8, "other's");
  answers_.keep(two_, 7, "123456");
  answers_.keep(three_, 7, "abcdef");
  EXPECT_EQ(fetch(two_), "-");
  EXPECT_EQ(fetch(three_), "abcdef");
  EXPECT_EQ(fetch(one_), "other's");
}

TEST_F(KeptAnswersTest, TheNewestIsKeptWhateverItsSize) {
  answers_.keep(one_, 7, "1");
  answers_.keep(two_, 7, std::string(20, 'x'));
  EXPECT_EQ(fetch(one_), "-");
  EXPECT_EQ(fetch(two_), std::string(20, 'x'));
}

TEST_F(KeptAnswersTest, AnAnswerGoesWithItsHandle) {
  {
    KeptAnswer closed;
    answers_.keep(closed, 7, "123456");
  }
  answers_.keep(one_, 7, "123456");
  EXPECT_EQ(fetch(one_), "123456");
}

}  // namespace
}  // namespace rekeyfs::fs
