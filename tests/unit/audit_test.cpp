// The audit log: its entries, their persistence, and its bounded size.
#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>

#include "engine/audit/audit_log.h"
#include "engine/audit/event_record.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr Caller kRoot{0, 0, true}, kAlice{64001, 64001}, kBob{64002, 64002};
constexpr std::size_t kSize = 1 << 20;

class AuditTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
    open("store", 0);
  }
  void TearDown() override { close(); }

  void open(const std::string& store, unsigned workers) {
    OpenOptions options;
    options.filler_workers = workers;
    options.user_keys = 100;
    auto engine = Engine::open(path(store), test::test_credential(), options);
    ASSERT_TRUE(engine) << test::error_text(engine);
    engine_ = std::move(*engine);
  }
  void close() {
    if (!engine_) return;
    EXPECT_TRUE(engine_->close());
    engine_.reset();
  }
  void reopen(unsigned workers = 0) {
    close();
    open("store", workers);
  }

  std::vector<Event> events(const EventQuery& query = {}) {
    auto found = engine_->reports().events(query);
    EXPECT_TRUE(found) << test::error_text(found);
    return found ? *found : std::vector<Event>{};
  }
  std::vector<Event> events(EventKind kind) {
    EventQuery query;
    query.kind = kind;
    query.most = 20'000;
    return events(query);
  }
  std::vector<Event> wait_for(EventKind kind) {
    for (int i = 0; i < 1000 && events(kind).empty(); ++i) std::this_thread::sleep_for(10ms);
    return events(kind);
  }

  Ino make_directory(const std::string& name, const std::string& key = "") {
    const Ino ino = engine_->names().make_directory(kRootIno, name, 0755, kRoot).value().ino;
    if (!key.empty()) {
      EXPECT_TRUE(engine_->names().setxattr(ino, "user.rekeyfs.key", key, XattrMode::either, kRoot));
    }
    return ino;
  }
  Ino make_image(Ino parent, const std::string& name) {
    Files::Created created = engine_->files().create(parent, name, 0600, O_RDWR, kRoot).value();
    const std::string content(kSize, 'x');
    EXPECT_EQ(engine_->files().write(*created.file, 0, as_bytes(content)).value(), kSize);
    EXPECT_TRUE(engine_->files().flush(*created.file));
    return created.attributes.ino;
  }
  // A key of Alice's that Bob may use.
  KeyFacts make_key(std::string_view alias) {
    EXPECT_TRUE(engine_->keys().create(alias, kAlice));
    return engine_->keys().change(alias, {.kind = KeyChange::Kind::grant, .user = kBob.uid}, kAlice).value();
  }

  bool copy(Ino source, Ino directory, const std::string& name, const Caller& caller, std::size_t size = kSize) {
    OpenFilePtr in = engine_->files().open(source, O_RDONLY, caller).value();
    Files::Created out = engine_->files().create(directory, name, 0600, O_WRONLY, caller).value();
    const bool copied = engine_->files().copy_range(*in, 0, *out.file, 0, size, caller).has_value();
    EXPECT_TRUE(engine_->files().flush(*out.file));
    return copied;
  }
  // An image that may not be replicated.
  Ino make_full() {
    const Ino directory = make_directory("full");
    EXPECT_TRUE(engine_->names().setxattr(directory, "user.rekeyfs.type", "full-ecs", XattrMode::either, kRoot));
    return make_image(directory, "image");
  }

  std::unique_ptr<Engine> engine_;
};

TEST_F(AuditTest, AReplicationIsThereWithWhoWhatAndKeys) {
  const KeyFacts one = make_key("one");
  const KeyFacts two = make_key("two");
  const Ino source = make_image(make_directory("from", "one"), "x");
  ASSERT_TRUE(copy(source, make_directory("to", "two"), "y", kBob));
  const auto found = events();
  ASSERT_EQ(found.size(), 7U);  // each key is made and granted, and given to a directory
  EXPECT_EQ(found[0].kind, EventKind::key_created);
  EXPECT_EQ(found[0].uid, kAlice.uid);
  EXPECT_EQ(found[0].key.alias, "one");
  EXPECT_EQ(found[1].kind, EventKind::key_granted);
  EXPECT_EQ(found[1].text, "user " + std::to_string(kBob.uid));
  const Event& asked = found[6];
  EXPECT_EQ(asked.kind, EventKind::replication_asked);
  EXPECT_EQ(asked.uid, kBob.uid);
  EXPECT_EQ(asked.path, "/to/y");
  EXPECT_EQ(asked.source, "/from/x");
  EXPECT_EQ(asked.key_before.id, one.id);
  EXPECT_EQ(asked.key.id, two.id);
  EXPECT_EQ(asked.key.alias, "two");
  EXPECT_LT(std::abs(asked.time - now()), 60'000'000'000);
}

TEST_F(AuditTest, ACopyWithinOneKeyIsAClone) {
  const Ino directory = make_directory("a");
  ASSERT_TRUE(copy(make_image(directory, "x"), directory, "y", kBob));
  const auto found = events();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, EventKind::cloned);
  EXPECT_EQ(found[0].key.id, "");
}

TEST_F(AuditTest, AnEntryAndItsChangeSurviveAKillTogether) {
  make_key("one");
  const Ino target = make_directory("to", "one");
  ASSERT_TRUE(copy(make_image(kRootIno, "x"), target, "y", kBob));
  test::copy_as_killed(path("store"), path("killed"));
  close();
  open("killed", 2);
  ASSERT_EQ(events(EventKind::replication_asked).size(), 1U);
  const auto completed = wait_for(EventKind::replication_completed);
  ASSERT_EQ(completed.size(), 1U);
  EXPECT_EQ(completed[0].uid, kBob.uid);
  EXPECT_EQ(completed[0].path, "/to/y");
  EXPECT_EQ(completed[0].source, "/x");
  EXPECT_EQ(completed[0].key.alias, "one");
  EXPECT_EQ(completed[0].bytes, kSize);
  EXPECT_GT(completed[0].nanoseconds, 0U);
}

TEST_F(AuditTest, RefusalsSurviveARemount) {
  ASSERT_FALSE(copy(make_full(), make_directory("to"), "y", kBob));
  reopen();
  const std::vector<Refusal> refusals = engine_->reports().refusals();
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_EQ(refusals[0].path, "/to/y");
  EXPECT_EQ(refusals[0].source, "/full/image");
  EXPECT_EQ(refusals[0].code, Errc::wrong_medium);
  EXPECT_EQ(refusals[0].uid, kBob.uid);
  EXPECT_THAT(refusals[0].rule, HasSubstr("full-ECS"));
}

// A flood of refusals costs an entry, and another one when it is over.
TEST_F(AuditTest, RefusalsThatRepeatAreCountedTogether) {
  const Ino source = make_full();
  ASSERT_TRUE(engine_->keys().create("first", kAlice));
  OpenFilePtr in = engine_->files().open(source, O_RDONLY, kRoot).value();
  const Ino target = make_image(kRootIno, "target");
  for (int i = 0; i < 1000; ++i) {
    OpenFilePtr out = engine_->files().open(target, O_WRONLY, kRoot).value();
    ASSERT_FALSE(engine_->files().copy_range(*in, 0, *out, 0, kSize, kBob));
  }
  in.reset();
  EXPECT_EQ(events(EventKind::refused).size(), 1U);
  reopen();
  const auto refused = events(EventKind::refused);
  ASSERT_EQ(refused.size(), 2U);
  EXPECT_EQ(refused[0].count, 1U);
  EXPECT_EQ(refused[1].count, 999U);
  EXPECT_EQ(refused[1].path, "/target");
  EXPECT_EQ(refused[1].uid, kBob.uid);
  EXPECT_GE(refused[1].since, refused[0].time);
  EXPECT_LE(refused[1].since, refused[1].time);
  EXPECT_EQ(engine_->reports().refusals().at(0).count, 999U);
}

TEST_F(AuditTest, AQueryChooses) {
  for (const char* alias : {"a", "b", "c", "d"}) ASSERT_TRUE(engine_->keys().create(alias, *alias < 'c' ? kAlice : kBob));
  EventQuery query;
  query.uid = kBob.uid;
  auto found = events(query);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].key.alias, "c");
  query.most = 1;
  EXPECT_EQ(events(query)[0].key.alias, "d");
  query = {};
  query.after = found[0].number;
  found = events(query);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].key.alias, "d");
  query.after = found[0].number;
  EXPECT_TRUE(events(query).empty());
}

// Fails at one block, over and over, while other blocks succeed.
TEST_F(AuditTest, AReplicationThatCannotGoOnIsLoggedOnceAndSoIsItsRecovery) {
  make_key("one");
  const Ino target = make_directory("to", "one");
  Files::Created created = engine_->files().create(kRootIno, "x", 0600, O_RDWR, kRoot).value();
  const std::string content(16 * kSize, 'x');
  ASSERT_TRUE(engine_->files().write(*created.file, 0, as_bytes(content)));
  ASSERT_TRUE(engine_->files().flush(*created.file));
  const LayerId layer = engine_->reports().info(created.attributes.ino).value().layers.at(0).id;
  ASSERT_TRUE(copy(created.attributes.ino, target, "y", kBob, content.size()));
  created.file.reset();
  close();

  char name[64];
  std::snprintf(name, sizeof name, "store/layers/%02x/%016lx.data0", static_cast<unsigned>(layer.value() & 0xff), layer.value());
  auto flip = [&] {
    std::fstream file(path(name), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(kSize - 1);  // in the last block of the first piece, so that the others are under way when it fails
    const int byte = file.get();
    file.seekp(kSize - 1);
    file.put(static_cast<char>(byte ^ 1));
    ASSERT_TRUE(file.good());
  };
  flip();
  open("store", 8);
  ASSERT_EQ(wait_for(EventKind::replication_failed).size(), 1U);
  std::this_thread::sleep_for(2500ms);  // tried again twice
  EXPECT_EQ(events(EventKind::replication_failed).size(), 1U);
  EXPECT_EQ(events(EventKind::replication_recovered).size(), 0U);
  flip();
  const auto completed = wait_for(EventKind::replication_completed);
  ASSERT_EQ(completed.size(), 1U);
  EXPECT_EQ(completed[0].nanoseconds, 0U) << "it waited: that says nothing about this machine";
  EXPECT_EQ(events(EventKind::replication_recovered).size(), 1U);
  EXPECT_EQ(events(EventKind::replication_failed)[0].uid, kBob.uid);
}

TEST(EventRecordTest, KeepsWhatItIsGiven) {
  Event event;
  event.kind = EventKind::refused;
  event.time = -5;
  event.uid = 7;
  event.path = "/a";
  event.source = "/b";
  event.key = {"id", "alias"};
  event.key_before = {"id before", "alias before"};
  event.code = Errc::key_revoked;
  event.text = "why";
  event.bytes = 8;
  event.nanoseconds = 9;
  const Event read = audit::decode(3, audit::encode(event)).value();
  EXPECT_EQ(read.number, 3U);
  EXPECT_EQ(read.kind, event.kind);
  EXPECT_EQ(read.time, event.time);
  EXPECT_EQ(read.uid, event.uid);
  EXPECT_EQ(read.path, event.path);
  EXPECT_EQ(read.source, event.source);
  EXPECT_EQ(read.key.id, "id");
  EXPECT_EQ(read.key_before.alias, "alias before");
  EXPECT_EQ(read.code, Errc::key_revoked);
  EXPECT_EQ(read.text, "why");
  EXPECT_EQ(read.bytes, 8U);
  EXPECT_EQ(read.nanoseconds, 9U);
}

TEST(EventRecordTest, IsSmallWhateverItIsGiven) {
  Event event;
  event.path = event.source = event.text = std::string(1 << 20, 'x');
  const std::string bytes = audit::encode(event);
  EXPECT_LT(bytes.size(), 4 * audit::kMaxText);
  EXPECT_THAT(audit::decode(1, bytes).value().path, ::testing::EndsWith("x..."));
}

TEST(EventRecordTest, TheBodyOfAChainedRecordHasLaterFields) {
  Event event;
  event.path = "/a";
  EXPECT_EQ(audit::decode_body(1, audit::encode_body(event)).value().count, 1U);
  event.count = 7;
  event.since = 5;
  std::string body = audit::encode_body(event);
  EXPECT_EQ(audit::decode_body(1, body).value().count, 7U);
  EXPECT_EQ(audit::decode_body(1, body).value().since, 5);
  EXPECT_EQ(audit::decode_body(1, body).value().path, "/a");
  EXPECT_TRUE(audit::decode_body(1, body + Writer().put(std::uint8_t{200}).put_string("of a later version").take()));
  EXPECT_EQ(audit::decode_body(1, body + "x").error().code, Errc::corrupt);
  EXPECT_EQ(audit::decode_body(1, "").error().code, Errc::corrupt);
}

TEST(EventRecordTest, RefusesWhatIsNoRecord) {
  const std::string bytes = audit::encode(Event{});
  EXPECT_EQ(audit::decode(1, bytes.substr(0, bytes.size() - 1)).error().code, Errc::corrupt);
  EXPECT_EQ(audit::decode(1, bytes + "x").error().code, Errc::corrupt);
  EXPECT_EQ(audit::decode(1, "\x63" + bytes.substr(1)).error().code, Errc::corrupt);
}

}  // namespace
}  // namespace rekeyfs
