// The key directory and the embedded master keys: names, wrapping, persistence across restarts, and manipulated
// records.
#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/kms/embedded_keys.h"
#include "engine/kms/key_directory.h"
#include "tests/support/watched_keys.h"

namespace rekeyfs::kms {
namespace {

class MapRecords final : public KeyRecords {
 public:
  Result<std::vector<std::pair<KeyId, std::string>>> all() override {
    return std::vector<std::pair<KeyId, std::string>>(records.begin(), records.end());
  }
  Status put(const KeyId& id, std::string_view record) override {
    if (dudirectory_put) dudirectory_put();
    if (full) return fail(Errc::no_space, "the disk is full");
    records[id] = record;
    return {};
  }
  Status remove(const KeyId& id) override {
    records.erase(id);
    return {};
  }

  std::map<KeyId, std::string> records;
  bool full = false;
  std::function<void()> dudirectory_put;
};

crypto::Key root_key() {
  const std::string bytes(crypto::kKeySize, 'r');
  return crypto::Key::from_bytes(as_bytes(bytes).first<crypto::kKeySize>()).value();
}

class KeyDirectoryTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<KeyDirectory>> reopen() { return KeyDirectory::open(root_key(), records_, masters_); }

  // A record with `change` made to its body, and again a good MAC: what only the store's owner could write.
  template <typename Change>
  void rewrite(const KeyId& id, Change change) {
    std::string& record = records_.records.at(id);
    std::string body = record.substr(0, record.size() - 32);
    change(body);
    auto mac = crypto::Mac::create(crypto::derive_key(root_key(), {}, "rekeyfs v1 key ring record").value()).value();
    record = body + std::string(as_text(mac.digest(as_bytes(body))));
  }

  MapRecords records_;
  test::WatchedKeys masters_{root_key()};
  std::unique_ptr<KeyDirectory> directory_ = reopen().value();
};

// Where the fields of a record start, for the alias "k" (the format manual has them all).
constexpr std::size_t kStateAt = 1 + 16;
constexpr std::size_t kVersionAt = kStateAt + 1 + 4 + 1;
constexpr std::size_t kDeletionAt = kVersionAt + 4 + 4 + 8;

TEST_F(KeyDirectoryTest, CreatesAndFinds) {
  const KeyInfo made = directory_->create("tenant-a", 1000).value();
  EXPECT_EQ(made.alias, "tenant-a");
  EXPECT_EQ(made.owner, 1000u);
  EXPECT_EQ(made.version, 1u);
  EXPECT_EQ(made.state, KeyState::enabled);
  EXPECT_GT(made.created, 0);
  EXPECT_EQ(directory_->find("tenant-a").value().id, made.id);
  EXPECT_EQ(directory_->find(made.id).value().alias, "tenant-a");
  std::string hex = to_hex(made.id);
  EXPECT_EQ(directory_->find(hex).value().alias, "tenant-a");
  for (char& c : hex) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(directory_->find(hex).value().alias, "tenant-a");
}

TEST_F(KeyDirectoryTest, UnknownKeysAreNoKey) {
  EXPECT_EQ(directory_->find("nobody").error().code, Errc::no_key);
  EXPECT_EQ(directory_->find("0123456789abcdef0123456789abcdef").error().code, Errc::no_key);
  EXPECT_EQ(directory_->find("").error().code, Errc::no_key);
  EXPECT_EQ(directory_->find(KeyId{}).error().code, Errc::no_key);
  EXPECT_EQ(directory_->wrap(KeyId{}, root_key(), {}).error().code, Errc::no_key);
  EXPECT_EQ(directory_->unwrap(KeyId{}, {}, {}).error().code, Errc::no_key);
}

TEST_F(KeyDirectoryTest, RefusesBadAliases) {
  for (const std::string alias : {"", "-x", ".x", "a b", "a/b", "a\n", "\xc3\xa9", "0123456789abcdefABCDEF0123456789"})
    EXPECT_EQ(directory_->create(alias, 0).error().code, Errc::invalid) << alias;
  EXPECT_EQ(directory_->create(std::string("a\0b", 3), 0).error().code, Errc::invalid);
  EXPECT_EQ(directory_->create(std::string(129, 'a'), 0).error().code, Errc::invalid);
  EXPECT_TRUE(records_.records.empty());
  EXPECT_TRUE(directory_->create(std::string(128, 'a'), 0));
  EXPECT_TRUE(directory_->create("A-z_0.9", 0));
  EXPECT_TRUE(directory_->create("_", 0));
}

TEST_F(KeyDirectoryTest, AliasesAreUnique) {
  ASSERT_TRUE(directory_->create("a", 0));
  EXPECT_EQ(directory_->create("a", 1).error().code, Errc::exists);
  EXPECT_EQ(records_.records.size(), 1u);
}

TEST_F(KeyDirectoryTest, ListsByAlias) {
  for (const char* alias : {"c", "a", "b"}) ASSERT_TRUE(directory_->create(alias, 0));
  std::string aliases;
  const std::vector<KeyInfo> keys = directory_->list().value();
  for (const KeyInfo& info : keys) aliases += info.alias;
  EXPECT_EQ(aliases, "abc");
}

TEST_F(KeyDirectoryTest, FailedPutLeavesNothing) {
  records_.full = true;
  EXPECT_EQ(directory_->create("a", 0).error().code, Errc::no_space);
  EXPECT_EQ(directory_->find("a").error().code, Errc::no_key);
  records_.full = false;
  EXPECT_TRUE(directory_->create("a", 0));
}

TEST_F(KeyDirectoryTest, KeysSurviveARestart) {
  const KeyInfo made = directory_->create("a", 7).value();
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey wrapped = directory_->wrap(made.id, data_key, as_bytes("layer 1")).value();
  directory_ = reopen().value();
  const KeyInfo found = directory_->find("a").value();
  EXPECT_EQ(found.id, made.id);
  EXPECT_EQ(found.owner, 7u);
  EXPECT_EQ(found.created, made.created);
  EXPECT_TRUE(directory_->unwrap(made.id, wrapped, as_bytes("layer 1")).value() == data_key);
}

TEST_F(KeyDirectoryTest, DataKeysOpenOnlyWhereTheyBelong) {
  const KeyId a = directory_->create("a", 0).value().id;
  const KeyId b = directory_->create("b", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  WrappedKey wrapped = directory_->wrap(a, data_key, as_bytes("layer 1")).value();
  EXPECT_EQ(wrapped.version, 1u);
  EXPECT_TRUE(directory_->unwrap(a, wrapped, as_bytes("layer 1")).value() == data_key);
  EXPECT_EQ(directory_->unwrap(a, wrapped, as_bytes("layer 2")).error().code, Errc::corrupt);
  EXPECT_EQ(directory_->unwrap(b, wrapped, as_bytes("layer 1")).error().code, Errc::corrupt);
  wrapped.version = 2;
  EXPECT_EQ(directory_->unwrap(a, wrapped, as_bytes("layer 1")).error().code, Errc::corrupt);
}

TEST_F(KeyDirectoryTest, EveryChangedByteOfAWrappedKeyIsNoticed) {
  const KeyId id = directory_->create("a", 0).value().id;
  const WrappedKey wrapped = directory_->wrap(id, root_key(), {}).value();
  for (std::size_t i = 0; i < wrapped.bytes.size(); ++i) {
    WrappedKey changed = wrapped;
    changed.bytes[i] = static_cast<char>(changed.bytes[i] ^ 4);
    EXPECT_EQ(directory_->unwrap(id, changed, {}).error().code, Errc::corrupt) << i;
  }
  EXPECT_EQ(directory_->unwrap(id, WrappedKey{1, ""}, {}).error().code, Errc::corrupt);
}

TEST_F(KeyDirectoryTest, EveryChangedByteOfARecordIsNoticed) {
  const KeyId id = directory_->create("k", 0).value().id;
  const std::string good = records_.records.at(id);
  for (std::size_t i = 0; i < good.size(); ++i) {
    records_.records[id] = good;
    records_.records[id][i] = static_cast<char>(good[i] ^ 1);
    EXPECT_EQ(reopen().error().code, Errc::corrupt) << i;
  }
  for (std::size_t size = 0; size < good.size(); ++size) {
    records_.records[id] = good.substr(0, size);
    EXPECT_EQ(reopen().error().code, Errc::corrupt) << size;
  }
  records_.records[id] = good + '\0';
  EXPECT_EQ(reopen().error().code, Errc::corrupt);
  records_.records[id] = good;
  EXPECT_TRUE(reopen());
}

TEST_F(KeyDirectoryTest, RecordsDoNotStandInForEachOther) {
  const KeyId a = directory_->create("a", 0).value().id;
  const KeyId b = directory_->create("b", 0).value().id;
  std::swap(records_.records[a], records_.records[b]);
  EXPECT_EQ(reopen().error().code, Errc::corrupt);
}

TEST_F(KeyDirectoryTest, AnotherRootOpensNothing) {
  ASSERT_TRUE(directory_->create("a", 0));
  const crypto::Key other = crypto::Key::random().value();
  const auto masters = EmbeddedKeys::create(other).value();
  EXPECT_EQ(KeyDirectory::open(other, records_, *masters).error().code, Errc::corrupt);
}

TEST_F(KeyDirectoryTest, LaterRecordVersionIsToldFromDamage) {
  const KeyId id = directory_->create("k", 0).value().id;
  rewrite(id, [](std::string& body) { body[0] = 3; });
  EXPECT_EQ(reopen().error().code, Errc::wrong_version);
}

TEST_F(KeyDirectoryTest, ContradictoryRecordsAreRefused) {
  const KeyId id = directory_->create("k", 0).value().id;
  const std::string good = records_.records.at(id);
  const auto refused = [&](auto change) {
    records_.records[id] = good;
    rewrite(id, change);
    auto directory = reopen();
    return !directory && directory.error().code == Errc::corrupt;
  };
  EXPECT_TRUE(refused([](std::string& body) { body[1] = static_cast<char>(body[1] ^ 1); })) << "another key's id";
  EXPECT_TRUE(refused([](std::string& body) { body[kStateAt] = 9; }));
  EXPECT_TRUE(refused([](std::string& body) { body[kStateAt] = 3; })) << "a pending deletion has a time";
  EXPECT_TRUE(refused([](std::string& body) { body[kDeletionAt] = 1; })) << "an enabled key has none";
  EXPECT_TRUE(refused([](std::string& body) { body[kVersionAt] = 2; })) << "there is no version 2";
  EXPECT_TRUE(refused([](std::string& body) { body[kVersionAt - 1] = '/'; }));
  EXPECT_TRUE(refused([](std::string& body) { body += 'x'; }));
  EXPECT_TRUE(refused([](std::string& body) { body[kDeletionAt + 8 + 3] = '\x7f'; }))
      << "two thousand million grantees";
}

TEST_F(KeyDirectoryTest, RecordCarriesStatesGranteesAndVersions) {
  const KeyId id = directory_->create("k", 0).value().id;
  const WrappedKey wrapped = directory_->wrap(id, root_key(), {}).value();
  rewrite(id, [](std::string& body) {
    body[kStateAt] = 3;
    body[kDeletionAt] = 5;
    body[kDeletionAt + 8] = 2;  // two grantees
    body.insert(kDeletionAt + 12, std::string("\x01\0\0\0\x02\0\0\0", 8));
  });
  directory_ = reopen().value();
  const KeyInfo info = directory_->find("k").value();
  EXPECT_EQ(info.state, KeyState::pending_deletion);
  EXPECT_EQ(info.deletion, 5);
  EXPECT_EQ(info.grantees, (std::vector<uid_t>{1, 2}));
  EXPECT_EQ(directory_->wrap(id, root_key(), {}).error().code, Errc::key_revoked);
  EXPECT_EQ(directory_->unwrap(id, wrapped, {}).error().code, Errc::key_revoked);
  rewrite(id, [](std::string& body) {
    body[kStateAt] = 1;
    body[kDeletionAt] = 0;
  });
  directory_ = reopen().value();
  EXPECT_TRUE(directory_->unwrap(id, wrapped, {}).value() == root_key());
}

TEST_F(KeyDirectoryTest, RotatedKeyOpensOldVersionsAndWrapsWithTheNewest) {
  const KeyId id = directory_->create("k", 0).value().id;
  const WrappedKey first = directory_->wrap(id, root_key(), {}).value();
  const auto master_wrap = crypto::KeyWrap::create(root_key(), "rekeyfs v1 master key").value();
  const std::string context =
      Writer().put_string("rekeyfs v1 master key").put_raw(id).put(std::uint32_t{2}).put_string("").take();
  const std::string second_master = master_wrap.wrap(as_bytes(context), crypto::Key::random().value()).value();
  rewrite(id, [&](std::string& body) {
    body[kVersionAt] = 2;
    body[kDeletionAt + 12] = 2;  // two versions
    body += Writer().put(std::uint32_t{2}).put_string(second_master).take();
  });
  directory_ = reopen().value();
  EXPECT_TRUE(directory_->unwrap(id, first, {}).value() == root_key());
  const WrappedKey second = directory_->wrap(id, root_key(), {}).value();
  EXPECT_EQ(second.version, 2u);
  EXPECT_TRUE(directory_->unwrap(id, second, {}).value() == root_key());
  EXPECT_EQ(directory_->unwrap(id, WrappedKey{1, second.bytes}, {}).error().code, Errc::corrupt);
}

// Layers are made inside a catalog transaction, and the catalog keeps the records: if a key being created held up
// those who only use keys, the two would wait for each other for ever.
TEST_F(KeyDirectoryTest, KeysCanBeUsedWhileARecordIsPut) {
  const KeyId id = directory_->create("a", 0).value().id;
  bool used = false;
  records_.dudirectory_put = [&] { std::thread([&] { used = directory_->wrap(id, root_key(), {}).has_value(); }).join(); };
  EXPECT_TRUE(directory_->create("b", 0));
  EXPECT_TRUE(used);
}

TEST_F(KeyDirectoryTest, ManyThreadsUseOneDirectory) {
  const KeyId shared = directory_->create("shared", 0).value().id;
  std::atomic<int> wrong = 0;
  std::atomic<int> made = 0;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (directory_->create("key-" + std::to_string(i), 0)) ++made;
        const crypto::Key key = crypto::Key::random().value();
        const auto wrapped = directory_->wrap(shared, key, as_bytes("c"));
        if (!wrapped || !(directory_->unwrap(shared, *wrapped, as_bytes("c")).value() == key)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(made, 50);
  EXPECT_EQ(directory_->list().value().size(), 51u);
  EXPECT_EQ(reopen().value()->list().value().size(), 51u);
}

TEST(KeyStateTest, Names) {
  EXPECT_EQ(name_of(KeyState::enabled), "enabled");
  EXPECT_EQ(name_of(KeyState::disabled), "disabled");
  EXPECT_EQ(name_of(KeyState::pending_deletion), "pending-deletion");
}

// --- the life of a key -----------------------------------------------------------------------------------------

TEST_F(KeyDirectoryTest, ADisabledKeyWrapsNothingAndItsGateIsShut) {
  const KeyId id = directory_->create("k", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey wrapped = directory_->wrap(id, data_key, {}).value();
  const auto gate = directory_->gate_of(id);
  EXPECT_TRUE(gate->is_open());
  EXPECT_EQ(directory_->disable(id).value().state, KeyState::disabled);
  EXPECT_FALSE(gate->is_open());
  EXPECT_EQ(directory_->wrap(id, data_key, {}).error().code, Errc::key_revoked);
  EXPECT_EQ(directory_->unwrap(id, wrapped, {}).error().code, Errc::key_revoked);
  EXPECT_EQ(directory_->rotate(id).error().code, Errc::key_revoked);
  directory_ = reopen().value();
  EXPECT_FALSE(directory_->gate_of(id)->is_open());
  ASSERT_TRUE(directory_->enable(id));
  EXPECT_TRUE(directory_->gate_of(id)->is_open());
  EXPECT_TRUE(directory_->unwrap(id, wrapped, {}));
}

TEST_F(KeyDirectoryTest, TheGateOfAnUnknownKeyIsShut) {
  EXPECT_FALSE(directory_->gate_of(KeyId{})->is_open());
}

TEST_F(KeyDirectoryTest, OldVersionsUnwrapUntilTheyAreForgotten) {
  const KeyId id = directory_->create("k", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey first = directory_->wrap(id, data_key, {}).value();
  EXPECT_EQ(directory_->rotate(id).value().version, 2u);
  const WrappedKey second = directory_->wrap(id, data_key, {}).value();
  EXPECT_EQ(second.version, 2u);
  directory_ = reopen().value();
  EXPECT_EQ(directory_->find(id).value().oldest, 1u);
  EXPECT_TRUE(directory_->unwrap(id, first, {}));
  ASSERT_TRUE(directory_->forget_versions(id, 2));
  EXPECT_EQ(directory_->find(id).value().oldest, 2u);
  EXPECT_EQ(directory_->unwrap(id, first, {}).error().code, Errc::corrupt);
  EXPECT_TRUE(directory_->unwrap(id, second, {}));
}

TEST_F(KeyDirectoryTest, TheNewestVersionIsNeverForgotten) {
  const KeyId id = directory_->create("k", 0).value().id;
  const WrappedKey wrapped = directory_->wrap(id, crypto::Key::random().value(), {}).value();
  ASSERT_TRUE(directory_->forget_versions(id, 7));
  EXPECT_TRUE(directory_->unwrap(id, wrapped, {}));
}

TEST_F(KeyDirectoryTest, ADeletionIsPendingUntilItIsDue) {
  const KeyId id = directory_->create("k", 0).value().id;
  const auto gate = directory_->gate_of(id);
  EXPECT_EQ(directory_->cancel_deletion(id).error().code, Errc::invalid);
  ASSERT_TRUE(directory_->schedule_deletion(id, now() + 3600'000'000'000));
  EXPECT_FALSE(gate->is_open());
  EXPECT_EQ(directory_->enable(id).error().code, Errc::invalid);
  EXPECT_EQ(directory_->disable(id).error().code, Errc::invalid);
  EXPECT_EQ(directory_->remove(id, now()).error().code, Errc::invalid);
  EXPECT_EQ(directory_->cancel_deletion(id).value().deletion, 0);
  EXPECT_TRUE(gate->is_open());
  ASSERT_TRUE(directory_->schedule_deletion(id, now()));
  ASSERT_TRUE(directory_->remove(id, now()));
  EXPECT_EQ(directory_->find("k").error().code, Errc::no_key);
  EXPECT_FALSE(gate->is_open());
  EXPECT_TRUE(records_.records.empty());
  EXPECT_TRUE(directory_->create("k", 0)) << "the name is free again";
}

TEST_F(KeyDirectoryTest, GrantsAreKeptSorted) {
  const KeyId id = directory_->create("k", 0).value().id;
  for (uid_t user : {30u, 10u, 20u, 10u}) ASSERT_TRUE(directory_->grant(id, user));
  directory_ = reopen().value();
  EXPECT_EQ(directory_->find(id).value().grantees, (std::vector<uid_t>{10, 20, 30}));
  EXPECT_EQ(directory_->revoke(id, 20).value().grantees, (std::vector<uid_t>{10, 30}));
  EXPECT_EQ(directory_->revoke(id, 20).error().code, Errc::invalid);
}

TEST_F(KeyDirectoryTest, ARightOfItsOwnMakesRecordsOfVersion2) {
  const KeyId id = directory_->create("k", 0).value().id;
  const auto version = [&] { return records_.records.at(id)[0]; };
  ASSERT_TRUE(directory_->grant(id, 7));
  EXPECT_EQ(version(), 1);
  for (uid_t user : {30u, 10u, 30u}) ASSERT_TRUE(directory_->grant_declassification(id, user));
  EXPECT_EQ(version(), 2);
  directory_ = reopen().value();
  EXPECT_EQ(directory_->find(id).value().grantees, (std::vector<uid_t>{7}));
  EXPECT_EQ(directory_->find(id).value().declassifiers, (std::vector<uid_t>{10, 30}));
  EXPECT_EQ(directory_->revoke_declassification(id, 7).error().code, Errc::invalid);
  ASSERT_TRUE(directory_->revoke_declassification(id, 10));
  ASSERT_TRUE(directory_->grant(id, 30));
  const KeyInfo left = directory_->revoke(id, 30).value();
  EXPECT_EQ(left.grantees, (std::vector<uid_t>{7})) << "to revoke takes all rights";
  EXPECT_TRUE(left.declassifiers.empty());
  EXPECT_EQ(version(), 1);
  rewrite(id, [](std::string& body) { body[0] = 2; });
  EXPECT_EQ(reopen().error().code, Errc::corrupt);
}

TEST_F(KeyDirectoryTest, AnOwnerHasAtMostSoManyKeys) {
  EXPECT_EQ(directory_->create("a", 7, 0).error().code, Errc::not_permitted);
  ASSERT_TRUE(directory_->create("a", 7, 2));
  ASSERT_TRUE(directory_->create("b", 8, 1));
  ASSERT_TRUE(directory_->create("c", 7, 2));
  const auto refused = directory_->create("d", 7, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "user 7 has 2 of 2 keys: delete one, or ask an operator of the store, who can make one");
  EXPECT_EQ(masters_.living(), 3u);
}

TEST_F(KeyDirectoryTest, AChangeThatCannotBeRecordedDoesNotHappen) {
  const KeyId id = directory_->create("k", 0).value().id;
  records_.full = true;
  EXPECT_EQ(directory_->grant(id, 7).error().code, Errc::no_space);
  EXPECT_EQ(directory_->rotate(id).error().code, Errc::no_space);
  EXPECT_TRUE(directory_->gate_of(id)->is_open());
  EXPECT_EQ(directory_->find(id).value().version, 1u);
}

TEST_F(KeyDirectoryTest, AKeyIsTakenAwayAlthoughThatCannotBeRecorded) {
  for (const bool deleted : {false, true}) {
    const KeyId id = directory_->create(deleted ? "a" : "b", 0).value().id;
    const auto take_away = [&] { return deleted ? directory_->schedule_deletion(id, now()) : directory_->disable(id); };
    const WrappedKey wrapped = directory_->wrap(id, root_key(), {}).value();
    const auto gate = directory_->gate_of(id);
    records_.full = true;
    EXPECT_EQ(take_away().error().code, Errc::no_space);
    EXPECT_FALSE(gate->is_open());
    EXPECT_EQ(directory_->find(id).value().state, KeyState::disabled);
    EXPECT_EQ(directory_->wrap(id, root_key(), {}).error().code, Errc::key_revoked);
    EXPECT_EQ(directory_->unwrap(id, wrapped, {}).error().code, Errc::key_revoked);
    EXPECT_EQ(directory_->rotate(id).error().code, Errc::key_revoked);
    EXPECT_EQ(directory_->remove(id, now()).error().code, Errc::invalid) << "a deletion counts when it is on record";
    records_.full = false;
    ASSERT_TRUE(directory_->grant(id, 7));
    EXPECT_FALSE(gate->is_open()) << "other changes do not open it";
    ASSERT_TRUE(directory_->enable(id));
    EXPECT_TRUE(gate->is_open());
    records_.full = true;
    EXPECT_FALSE(take_away());
    records_.full = false;
    EXPECT_EQ(take_away().value().state, deleted ? KeyState::pending_deletion : KeyState::disabled);
    ASSERT_TRUE(deleted ? directory_->cancel_deletion(id) : directory_->enable(id));
    EXPECT_TRUE(directory_->unwrap(id, wrapped, {}));
  }
}

TEST_F(KeyDirectoryTest, TheGateIsShutBeforeTheRecordIsPut) {
  const KeyId id = directory_->create("k", 0).value().id;
  bool open = true;
  records_.dudirectory_put = [&] { open = directory_->gate_of(id)->is_open(); };
  ASSERT_TRUE(directory_->disable(id));
  EXPECT_FALSE(open);
}

// --- the key service behind it ---------------------------------------------------------------------------------

TEST_F(KeyDirectoryTest, NobodyWaitsForAKeyServiceThatIsSlow) {
  const KeyId id = directory_->create("k", 0).value().id;
  for (const auto verb : {test::WatchedKeys::Verb::make, test::WatchedKeys::Verb::wrap, test::WatchedKeys::Verb::destroy}) {
    bool went_on = false;
    masters_.set_hook([&](test::WatchedKeys::Verb asked) -> Status {
      if (asked != verb) return {};
      masters_.set_hook(nullptr);
      went_on = directory_->find("k") && directory_->list() && directory_->grant(id, 7) && directory_->disable(id) &&
                directory_->enable(id) && directory_->create("other", 0);
      return fail(Errc::io, "the key service cannot be reached");
    });
    const auto asked = [&]() -> Status {
      if (verb == test::WatchedKeys::Verb::wrap) RK_TRY(directory_->wrap(id, root_key(), {}));
      RK_TRY(directory_->rotate(id));
      return directory_->forget_versions(id, 99);
    }();
    EXPECT_EQ(asked.error().code, Errc::io);
    EXPECT_TRUE(went_on);
    const KeyId other = directory_->find("other").value().id;
    ASSERT_TRUE(directory_->schedule_deletion(other, now()));
    ASSERT_TRUE(directory_->remove(other, now()));
  }
}

TEST_F(KeyDirectoryTest, MasterKeysGoBeforeTheirRecord) {
  const KeyId id = directory_->create("k", 0).value().id;
  ASSERT_TRUE(directory_->rotate(id));
  ASSERT_TRUE(directory_->schedule_deletion(id, now()));
  masters_.set_hook([](test::WatchedKeys::Verb verb) -> Status {
    return verb == test::WatchedKeys::Verb::destroy ? fail(Errc::io, "the key service cannot be reached") : Status{};
  });
  EXPECT_EQ(directory_->remove(id, now()).error().code, Errc::io);
  EXPECT_TRUE(directory_->find(id)) << "what is not destroyed stays on record";
  EXPECT_EQ(directory_->cancel_deletion(id).error().code, Errc::invalid) << "a part of it may be gone";
  EXPECT_EQ(directory_->schedule_deletion(id, now() + 3600'000'000'000).error().code, Errc::invalid);
  masters_.set_hook(nullptr);
  ASSERT_TRUE(directory_->remove(id, now()));
  EXPECT_EQ(masters_.living(), 0u);
}

TEST_F(KeyDirectoryTest, AMasterKeyThatCannotBeRecordedIsDestroyed) {
  const KeyId id = directory_->create("k", 0).value().id;
  records_.full = true;
  EXPECT_FALSE(directory_->create("other", 0));
  EXPECT_FALSE(directory_->rotate(id));
  EXPECT_EQ(masters_.living(), 1u);
}

TEST_F(KeyDirectoryTest, ForgottenVersionsAreDestroyed) {
  const KeyId id = directory_->create("k", 0).value().id;
  ASSERT_TRUE(directory_->rotate(id));
  ASSERT_TRUE(directory_->rotate(id));
  ASSERT_TRUE(directory_->forget_versions(id, 3));
  EXPECT_EQ(masters_.living(), 1u);
  EXPECT_TRUE(directory_->wrap(id, root_key(), {}));
}

}  // namespace
}  // namespace rekeyfs::kms
