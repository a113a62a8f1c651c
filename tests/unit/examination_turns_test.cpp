// The order in which the initializer reads images: turns of users, and small images first.
#include <string>

#include <gmock/gmock.h>

#include "engine/images/examination_turns.h"

namespace rekeyfs::images {
namespace {

class ExaminationTurnsTest : public ::testing::Test {
 protected:
  void add(uid_t user, std::uint64_t ino, std::uint64_t bytes_left) {
    turns_.add(std::make_shared<Examination>(Examination{.ino = Ino{ino}, .user = user, .pause = {}}), bytes_left);
  }
  std::uint64_t take() {
    taken_ = turns_.take();
    return taken_ ? taken_->ino.value() : 0;
  }

  ExaminationTurns turns_;
  ExaminationTurns::Item taken_;
};

TEST_F(ExaminationTurnsTest, UsersTakeTurnsAndTheirSmallImagesComeFirst) {
  add(1, 11, 1000);
  add(1, 12, 10);
  add(2, 21, 500);
  std::vector<std::uint64_t> order;
  for (int i = 0; i < 3; ++i) {
    order.push_back(take());
    turns_.end(taken_);
  }
  EXPECT_THAT(order, testing::ElementsAre(12, 21, 11));
  EXPECT_EQ(take(), 0u);
}

TEST_F(ExaminationTurnsTest, OneWorkerWorksForAUser) {
  add(1, 11, 10);
  add(1, 12, 20);
  EXPECT_EQ(take(), 11u);
  EXPECT_EQ(turns_.take(), nullptr);
  add(2, 21, 30);
  EXPECT_EQ(turns_.take()->ino, Ino{21});
  turns_.end(taken_);
  EXPECT_EQ(take(), 12u);
}

TEST_F(ExaminationTurnsTest, WhatIsGivenBackLetsASmallerOneGoFirst) {
  add(1, 11, 1000);
  EXPECT_EQ(take(), 11u);
  add(1, 12, 10);
  turns_.give_back(taken_, 900);
  EXPECT_EQ(take(), 12u);
  turns_.end(taken_);
  EXPECT_EQ(take(), 11u);
}

TEST_F(ExaminationTurnsTest, WhatIsRemovedDoesNotComeBack) {
  add(1, 11, 1000);
  add(1, 12, 2000);
  EXPECT_EQ(take(), 11u);
  turns_.remove(Ino{11});
  turns_.remove(Ino{12});
  EXPECT_EQ(turns_.find(Ino{11}), nullptr);
  turns_.give_back(taken_, 900);
  EXPECT_EQ(take(), 0u);
  add(1, 13, 1);
  EXPECT_EQ(take(), 13u);
}

TEST_F(ExaminationTurnsTest, OneThatIsReplacedInAWorkersHandsStartsAgain) {
  add(1, 11, 1000);
  EXPECT_EQ(take(), 11u);
  const auto old = taken_;
  add(1, 11, 2000);
  turns_.give_back(old, 900);
  EXPECT_EQ(take(), 11u);
  EXPECT_NE(taken_, old);
}

}  // namespace
}  // namespace rekeyfs::images
