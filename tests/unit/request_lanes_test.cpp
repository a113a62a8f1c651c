// Lanes for requests that may wait: places of users, turns, and the bound of memory. And which requests may wait.
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/fuse.h>

#include "fs/request_lanes.h"

namespace rekeyfs::fs {
namespace {

using Kind = RequestHead::Kind;
using testing::ElementsAre;

constexpr auto kOfAll = RequestLanes::kContentPlaces.all, kOfOne = RequestLanes::kContentPlaces.of_one_user;

class RequestLanesTest : public ::testing::Test {
 protected:
  bool enter(uid_t user, std::string_view text = "request", Kind kind = Kind::content) {
    return lanes_.enter({kind, user}, as_bytes(text));
  }
  // The user and the text of what is served next; empty if nothing is.
  std::string leave(uid_t user, Kind kind = Kind::content) {
    const auto next = lanes_.leave({kind, user});
    return next ? std::to_string(next->head.user) + std::string(as_text(next->bytes)) : "";
  }
  void fill(uid_t user) {
    for (std::size_t i = 0; i < kOfOne; ++i) ASSERT_TRUE(enter(user));
  }

  RequestLanes lanes_{100};
};

TEST_F(RequestLanesTest, AUserHasSoManyPlaces) {
  fill(1);
  EXPECT_FALSE(enter(1, "a"));
  EXPECT_TRUE(enter(2));
  EXPECT_EQ(leave(2), "");  // frees no place of user 1
  EXPECT_EQ(leave(1), "1a");
  EXPECT_EQ(leave(1), "");
  EXPECT_TRUE(enter(1));
}

TEST_F(RequestLanesTest, UsersTakeTurnsAndEachOnesRequestsKeepTheirOrder) {
  for (uid_t user = 1; user <= kOfAll / kOfOne; ++user) fill(user);
  for (const uid_t user : {11, 12}) {
    EXPECT_FALSE(enter(user, "a"));
    EXPECT_FALSE(enter(user, "b"));
  }
  std::vector<std::string> served;
  for (int i = 0; i < 4; ++i) served.push_back(leave(1));
  EXPECT_THAT(served, ElementsAre("11a", "12a", "11b", "12b"));
  EXPECT_EQ(leave(1), "");
}

TEST_F(RequestLanesTest, PromptRequestsAndCommandsDoNotWaitForContent) {
  fill(1);
  EXPECT_FALSE(enter(1));
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(enter(1, "ls", Kind::prompt));
  EXPECT_EQ(leave(1, Kind::prompt), "");
  EXPECT_TRUE(enter(1, "status", Kind::command));
  EXPECT_EQ(leave(1, Kind::command), "");
}

TEST_F(RequestLanesTest, ARequestBeyondTheBoundOfMemoryIsServedAtOnce) {
  fill(1);
  const std::string large(99, 'x');
  EXPECT_FALSE(enter(1, large));
  EXPECT_FALSE(enter(1, "y"));
  EXPECT_TRUE(enter(1, "z"));
  EXPECT_EQ(leave(1), "");  // one was beyond the places
  EXPECT_EQ(leave(1), "1" + large);
  EXPECT_FALSE(enter(1, large));
}

template <typename T>
RequestHead head_with(std::uint32_t opcode, const T& argument) {
  std::vector<std::byte> request(sizeof(fuse_in_header) + sizeof(argument));
  fuse_in_header header{};
  header.opcode = opcode;
  header.uid = 1000;
  std::memcpy(request.data(), &header, sizeof(header));
  std::memcpy(request.data() + sizeof(header), &argument, sizeof(argument));
  return head_of(request);
}

TEST(Request, KindAndUserAreInItsHead) {
  EXPECT_EQ(head_with(FUSE_READ, fuse_read_in{}).kind, Kind::content);
  EXPECT_EQ(head_with(FUSE_READ, fuse_read_in{}).user, 1000u);
  EXPECT_EQ(head_with(FUSE_IOCTL, fuse_ioctl_in{}).kind, Kind::command);
  EXPECT_EQ(head_with(FUSE_GETATTR, fuse_getattr_in{}).kind, Kind::prompt);
  fuse_open_in open{};
  EXPECT_EQ(head_with(FUSE_OPEN, open).kind, Kind::prompt);
  open.flags = O_WRONLY | O_TRUNC;
  EXPECT_EQ(head_with(FUSE_OPEN, open).kind, Kind::content);
  fuse_setattr_in change{};
  change.valid = FATTR_MODE;
  EXPECT_EQ(head_with(FUSE_SETATTR, change).kind, Kind::prompt);
  change.valid |= FATTR_SIZE;
  EXPECT_EQ(head_with(FUSE_SETATTR, change).kind, Kind::content);
  EXPECT_EQ(head_of({}).kind, Kind::prompt);
}

}  // namespace
}  // namespace rekeyfs::fs
