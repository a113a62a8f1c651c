// When `status --wait` and `--watch` end, and with which exit code; with a target that plays back answers.
#include <deque>
#include <initializer_list>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/watch.h"

namespace rekeyfs::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json replication(const std::string& path, const std::string& state) {
  return {{"path", path},
          {"state", state},
          {"error", state == "error" ? "why" : ""},
          {"percent", 50.0},
          {"bytes_total", 100},
          {"bytes_done", 50},
          {"bytes_per_second", 0.0},
          {"seconds_left", nullptr}};
}

json directory(std::initializer_list<json> replications) {
  return {{"kind", "directory"}, {"replications", json::array_t(replications)}};
}

json image(const std::string& status) {
  json list = json::array();
  if (status == "replicating" || status == "error") list.push_back(replication("/x", status));
  return {{"kind", "image"}, {"status", status}, {"replications", list}};
}

// Answers "progress" with one answer after the other, then with a failure.
class PlayedTarget : public Target {
 public:
  PlayedTarget(std::initializer_list<json> answers) : answers_(answers) {}
  Outcome<json> call(json request) override {
    if (request.at("command") == "state") return state_of(request.at("path"));
    if (answers_.empty()) return fail(ExitCode::not_mounted, "played to the end");
    json answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }
  std::size_t left() const { return answers_.size(); }

 private:
  static Outcome<json> state_of(const std::string& path) {
    if (path == "/removed") return fail(ExitCode::not_found, "gone");
    return json{{"path", path}, {"status", "normal"}};
  }
  std::deque<json> answers_;
};

TEST(WatchTest, AnImageHasSettledWhenItIsNormalOrInError) {
  for (const char* status : {"creating", "normal-uninitialized", "replicating"})
    EXPECT_FALSE(has_settled(image(status))) << status;
  for (const char* status : {"normal", "error"}) EXPECT_TRUE(has_settled(image(status))) << status;
}

TEST(WatchTest, ADirectoryHasSettledWhenNothingReplicates) {
  EXPECT_TRUE(has_settled(directory({})));
  EXPECT_TRUE(has_settled(directory({replication("/x", "error")})));
  EXPECT_FALSE(has_settled(directory({replication("/x", "error"), replication("/y", "replicating")})));
}

TEST(WatchTest, TheVerdictIsBadIfOneIsInError) {
  EXPECT_EQ(verdict(directory({}), Until::settled), ExitCode::ok);
  EXPECT_EQ(verdict(image("normal"), Until::settled), ExitCode::ok);
  EXPECT_EQ(verdict(directory({replication("/x", "replicating"), replication("/y", "error")}), Until::settled),
            ExitCode::replication_failed);
  EXPECT_EQ(verdict(json{{"kind", "image"}, {"status", "error"}, {"replications", json::array()}}, Until::settled),
            ExitCode::replication_failed);
}

TEST(WatchTest, WaitsThroughEveryStateUpToTheLast) {
  PlayedTarget target{image("creating"), image("replicating"), image("normal-uninitialized"), image("normal")};
  Interrupt interrupt;
  EXPECT_EQ(wait_until_settled(target, interrupt).value(), image("normal"));
  EXPECT_EQ(target.left(), 0U);
}

json on_read_only_store(json answer) {
  answer["stopped"] = "the store is read-only";
  return answer;
}

TEST(WatchTest, NobodyWaitsForWhatDoesNotGoOn) {
  PlayedTarget target{on_read_only_store(image("replicating"))};
  Interrupt interrupt;
  const Outcome<json> last = wait_until_settled(target, interrupt);
  ASSERT_TRUE(last);
  EXPECT_EQ(verdict(*last, Until::settled), ExitCode::stopped);
  EXPECT_EQ(verdict(on_read_only_store(image("normal-uninitialized")), Until::nothing_replicates), ExitCode::ok);
  EXPECT_EQ(verdict(on_read_only_store(image("normal")), Until::settled), ExitCode::ok);
  EXPECT_EQ(verdict(on_read_only_store(directory({})), Until::settled), ExitCode::ok);
  EXPECT_EQ(verdict(on_read_only_store(directory({replication("/x", "error")})), Until::settled), ExitCode::replication_failed);
}

TEST(WatchTest, AFailureEndsTheWait) {
  PlayedTarget target{image("replicating")};
  Interrupt interrupt;
  Outcome<json> last = wait_until_settled(target, interrupt);
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, ExitCode::not_mounted);
}

TEST(WatchTest, PlainLinesTellProgressAndWhatBecameOfEach) {
  PlayedTarget target{directory({replication("/done", "replicating"), replication("/removed", "replicating")}),
                      directory({replication("/bad", "error")})};
  Interrupt interrupt;
  ::testing::internal::CaptureStdout();
  Outcome<json> last = watch(target, interrupt, Until::nothing_replicates);
  std::string shown = ::testing::internal::GetCapturedStdout();
  ASSERT_TRUE(last);
  EXPECT_THAT(shown, HasSubstr("/done   50.0 %"));
  EXPECT_THAT(shown, HasSubstr("/done  finished\n"));
  EXPECT_THAT(shown, HasSubstr("/removed  removed\n"));
  EXPECT_THAT(shown, HasSubstr("error: why"));
}

}  // namespace
}  // namespace rekeyfs::tools
