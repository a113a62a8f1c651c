// The audit log's rings, and the chain of its events: what is dropped, and what verification finds.
#include <memory>
#include <optional>

#include <gmock/gmock.h>

#include "engine/audit/audit_log.h"
#include "engine/audit/event_record.h"
#include "engine/namespace/tree.h"
#include "engine/store/store.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"

namespace rekeyfs {
namespace {

using audit::AuditLog;
using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uid_t kAlice = 64001, kBob = 64002, kCarol = 64003, kEve = 64666;

class AuditChainTest : public test::TempDirectory {
 protected:
  void SetUp() override {
    ASSERT_TRUE(store::Store::create(path("store"), test::test_credential(), names::Tree::initial_records(Caller{})));
    open();
  }
  void TearDown() override { close(); }

  void open() {
    auto store = store::Store::open(path("store"), test::test_credential(), false);
    ASSERT_TRUE(store) << test::error_text(store);
    store_ = std::move(*store);
    load();
  }
  void load() {
    log_.emplace(store_->catalog(), audit::RingBounds{4, 4, 4});
    ASSERT_TRUE(log_->load(store_->root(), store_->id()));
    ASSERT_TRUE(log_->take_over());
  }
  void close() {
    log_.reset();
    if (store_) {
      EXPECT_TRUE(store_->close());
    }
    store_.reset();
  }
  void reopen() {
    close();
    open();
  }

  static Event event_of(EventKind kind, uid_t uid) {
    Event event;
    event.kind = kind;
    event.uid = uid;
    event.path = "/path";
    return event;
  }
  void add(EventKind kind, uid_t uid = kAlice, int times = 1) {
    for (int i = 0; i < times; ++i) ASSERT_TRUE(log_->add(event_of(kind, uid)));
  }
  std::vector<std::uint64_t> numbers(EventQuery query = {}) {
    std::vector<std::uint64_t> found;
    const std::vector<Event> events = log_->find(query).value();
    for (const Event& event : events) found.push_back(event.number);
    return found;
  }
  LogVerification verified() { return log_->verify().value(); }
  std::vector<std::string> problems() { return verified().problems; }
  void change(const std::string& key, const std::optional<std::string>& value) {
    WriteTxn txn(store_->catalog());
    if (value) txn.put(key, *value);
    else txn.erase(key);
    ASSERT_TRUE(txn.commit());
  }
  std::string value_of(const std::string& key) { return store_->catalog().get(key).value().value(); }

  std::unique_ptr<store::Store> store_;
  std::optional<AuditLog> log_;
};

TEST_F(AuditChainTest, EventsOfOneRingDoNotPushOutThoseOfAnother) {
  add(EventKind::key_created);
  add(EventKind::cloned);
  add(EventKind::refused, kAlice, 20);
  add(EventKind::replication_asked, kAlice, 20);
  EXPECT_THAT(numbers(), ElementsAre(1, 19, 20, 21, 22, 39, 40, 41, 42));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(AuditChainTest, AUserPushesOutNobodyWhoHasFewerEvents) {
  add(EventKind::key_created, kAlice);
  add(EventKind::policy_changed, kBob);
  add(EventKind::policy_changed, kEve, 20);
  EXPECT_THAT(numbers(), ElementsAre(1, 2, 21, 22));
  add(EventKind::key_granted, kCarol);
  EXPECT_THAT(numbers(), ElementsAre(1, 2, 22, 23));
  add(EventKind::policy_changed, kEve);
  EXPECT_THAT(numbers(), ElementsAre(1, 2, 23, 24));
  EXPECT_THAT(problems(), IsEmpty());
  reopen();
  add(EventKind::policy_changed, kEve, 3);
  EXPECT_THAT(numbers(), ElementsAre(1, 2, 23, 27));
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(AuditChainTest, AQueryTakesTheNewestOrTheOldest) {
  add(EventKind::key_created, kAlice, 4);
  EventQuery query;
  query.most = 2;
  EXPECT_THAT(numbers(query), ElementsAre(3, 4));
  query.oldest = true;
  EXPECT_THAT(numbers(query), ElementsAre(1, 2));
  query.after = 2;
  EXPECT_THAT(numbers(query), ElementsAre(3, 4));
  query.after = 4;
  EXPECT_THAT(numbers(query), IsEmpty());
  query = {};
  query.most_bytes = 1;
  EXPECT_THAT(numbers(query), ElementsAre(1));
}

TEST_F(AuditChainTest, ATransactionThatIsGivenUpLeavesNothing) {
  add(EventKind::refused, kAlice, 4);
  {
    WriteTxn txn(store_->catalog());
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(log_->add(txn, event_of(EventKind::refused, kBob)));
    EXPECT_THAT(numbers(), ElementsAre(3, 4)) << "what is not committed is not found, and what goes may be gone";
  }
  EXPECT_THAT(problems(), IsEmpty());
  add(EventKind::refused, kBob);
  EXPECT_THAT(numbers(), ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(verified().events, 4U);
  EXPECT_THAT(problems(), IsEmpty());
}

TEST_F(AuditChainTest, OneTransactionMayHaveSeveralEvents) {
  WriteTxn txn(store_->catalog());
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(log_->add(txn, event_of(EventKind::refused, kBob)));
  ASSERT_TRUE(txn.commit());
  EXPECT_THAT(numbers(), ElementsAre(3, 4, 5, 6));
}

TEST_F(AuditChainTest, AnEventThatIsMissingIsFound) {
  add(EventKind::key_created, kAlice, 4);
  change(make_key(Table::event, 2), std::nullopt);
  EXPECT_THAT(problems(), ElementsAre("1 events are missing"));
}

TEST_F(AuditChainTest, TheNewestEventThatIsMissingIsFound) {
  add(EventKind::key_created, kAlice, 4);
  change(make_key(Table::event, 4), std::nullopt);
  EXPECT_THAT(problems(), ElementsAre(HasSubstr("number 4, is missing"), "1 events are missing"));
}

TEST_F(AuditChainTest, AnEventThatWasChangedIsFound) {
  add(EventKind::key_created, kAlice, 3);
  audit::ChainedRecord record = audit::ChainedRecord::decode(value_of(make_key(Table::event, 2))).value();
  record.body = audit::encode_body(event_of(EventKind::key_created, kEve));
  change(make_key(Table::event, 2), record.encode());
  EXPECT_THAT(problems(), ElementsAre("event 3 does not follow event 2: one of them was changed", HasSubstr("an event was changed")));
}

TEST_F(AuditChainTest, TwoEventsThatWereExchangedAreFound) {
  add(EventKind::key_created, kAlice, 3);
  const std::string one = make_key(Table::event, 1), two = make_key(Table::event, 2);
  const std::string first = value_of(one);
  change(one, value_of(two));
  change(two, first);
  EXPECT_FALSE(problems().empty());
}

TEST_F(AuditChainTest, AnOlderHeadIsFound) {
  add(EventKind::key_created, kAlice, 2);
  const std::string head = value_of(make_key(Table::event_head));
  add(EventKind::key_created);
  change(make_key(Table::event_head), head);
  EXPECT_FALSE(problems().empty());
  change(make_key(Table::event_head), std::nullopt);
  EXPECT_THAT(problems(), ElementsAre("the head of the audit log is missing"));
}

// As a version without a chain left it, and as one leaves it that was used in between.
class EarlierVersionTest : public AuditChainTest {
 protected:
  void add_as_earlier_version(std::uint64_t number, uid_t uid) {
    change(make_key(Table::audit, number), audit::encode(event_of(EventKind::key_created, uid)));
  }
};

TEST_F(EarlierVersionTest, ItsEventsKeepTheirNumbersAndAreNotVerified) {
  add_as_earlier_version(5, kAlice);
  add_as_earlier_version(7, kBob);
  load();
  EXPECT_EQ(log_->newest_at_load(), 7U);
  add(EventKind::key_created);
  EXPECT_THAT(numbers(), ElementsAre(5, 7, 8));
  const LogVerification log = verified();
  EXPECT_EQ(log.unverified, 2U);
  EXPECT_EQ(log.first, 8U);
  EXPECT_EQ(log.events, 1U);
  EXPECT_THAT(log.problems, IsEmpty());
  add(EventKind::key_created, kAlice, 2);
  EXPECT_THAT(numbers(), ElementsAre(7, 8, 9, 10)) << "they are dropped like others";
}

TEST_F(EarlierVersionTest, EventsThatItAddsToAChainedLogGetNewNumbers) {
  add(EventKind::key_created, kAlice, 2);
  add_as_earlier_version(1, kBob);
  add_as_earlier_version(2, kBob);
  reopen();
  EXPECT_THAT(numbers(), ElementsAre(1, 2, 3, 4));
  EventQuery query;
  query.uid = kBob;
  EXPECT_THAT(numbers(query), ElementsAre(3, 4));
  EXPECT_THAT(problems(), IsEmpty());
  EXPECT_FALSE(store_->catalog().get(make_key(Table::audit, 1)).value());
}

}  // namespace
}  // namespace rekeyfs
