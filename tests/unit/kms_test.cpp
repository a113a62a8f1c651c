// The embedded key ring: names, wrapping, what survives a restart, and records that somebody changed.
#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "engine/kms/key_ring.h"

namespace rekeyfs::kms {
namespace {

class MapRecords final : public KeyRecords {
 public:
  Result<std::optional<std::string>> get(const KeyId& id) override {
    auto at = records.find(id);
    if (at == records.end()) return std::nullopt;
    return at->second;
  }
  Result<std::vector<std::pair<KeyId, std::string>>> all() override {
    return std::vector<std::pair<KeyId, std::string>>(records.begin(), records.end());
  }
  Status put(const KeyId& id, std::string_view record) override {
    if (during_put) during_put();
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
  std::function<void()> during_put;
};

crypto::Key root_key() {
  const std::string bytes(crypto::kKeySize, 'r');
  return crypto::Key::from_bytes(as_bytes(bytes).first<crypto::kKeySize>()).value();
}

class KeyRingTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<KeyRing>> reopen() { return KeyRing::open(root_key(), records_); }

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
  std::unique_ptr<KeyRing> ring_ = reopen().value();
};

// Where the fields of a record start, for the alias "k" (the format manual has them all).
constexpr std::size_t kStateAt = 1 + 16;
constexpr std::size_t kVersionAt = kStateAt + 1 + 4 + 1;
constexpr std::size_t kDeletionAt = kVersionAt + 4 + 4 + 8;

TEST_F(KeyRingTest, CreatesAndFinds) {
  const KeyInfo made = ring_->create("tenant-a", 1000).value();
  EXPECT_EQ(made.alias, "tenant-a");
  EXPECT_EQ(made.owner, 1000u);
  EXPECT_EQ(made.version, 1u);
  EXPECT_EQ(made.state, KeyState::enabled);
  EXPECT_GT(made.created, 0);
  EXPECT_EQ(ring_->find("tenant-a").value().id, made.id);
  EXPECT_EQ(ring_->find(made.id).value().alias, "tenant-a");
  std::string hex = to_hex(made.id);
  EXPECT_EQ(ring_->find(hex).value().alias, "tenant-a");
  for (char& c : hex) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(ring_->find(hex).value().alias, "tenant-a");
}

TEST_F(KeyRingTest, UnknownKeysAreNoKey) {
  EXPECT_EQ(ring_->find("nobody").error().code, Errc::no_key);
  EXPECT_EQ(ring_->find("0123456789abcdef0123456789abcdef").error().code, Errc::no_key);
  EXPECT_EQ(ring_->find("").error().code, Errc::no_key);
  EXPECT_EQ(ring_->find(KeyId{}).error().code, Errc::no_key);
  EXPECT_EQ(ring_->wrap(KeyId{}, root_key(), {}).error().code, Errc::no_key);
  EXPECT_EQ(ring_->unwrap(KeyId{}, {}, {}).error().code, Errc::no_key);
}

TEST_F(KeyRingTest, RefusesBadAliases) {
  for (const std::string alias : {"", "-x", ".x", "a b", "a/b", "a\n", "\xc3\xa9", "0123456789abcdefABCDEF0123456789"})
    EXPECT_EQ(ring_->create(alias, 0).error().code, Errc::invalid) << alias;
  EXPECT_EQ(ring_->create(std::string("a\0b", 3), 0).error().code, Errc::invalid);
  EXPECT_EQ(ring_->create(std::string(129, 'a'), 0).error().code, Errc::invalid);
  EXPECT_TRUE(records_.records.empty());
  EXPECT_TRUE(ring_->create(std::string(128, 'a'), 0));
  EXPECT_TRUE(ring_->create("A-z_0.9", 0));
  EXPECT_TRUE(ring_->create("_", 0));
}

TEST_F(KeyRingTest, AliasesAreUnique) {
  ASSERT_TRUE(ring_->create("a", 0));
  EXPECT_EQ(ring_->create("a", 1).error().code, Errc::exists);
  EXPECT_EQ(records_.records.size(), 1u);
}

TEST_F(KeyRingTest, ListsByAlias) {
  for (const char* alias : {"c", "a", "b"}) ASSERT_TRUE(ring_->create(alias, 0));
  std::string aliases;
  const std::vector<KeyInfo> keys = ring_->list().value();
  for (const KeyInfo& info : keys) aliases += info.alias;
  EXPECT_EQ(aliases, "abc");
}

TEST_F(KeyRingTest, FailedPutLeavesNothing) {
  records_.full = true;
  EXPECT_EQ(ring_->create("a", 0).error().code, Errc::no_space);
  EXPECT_EQ(ring_->find("a").error().code, Errc::no_key);
  records_.full = false;
  EXPECT_TRUE(ring_->create("a", 0));
}

TEST_F(KeyRingTest, KeysSurviveARestart) {
  const KeyInfo made = ring_->create("a", 7).value();
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey wrapped = ring_->wrap(made.id, data_key, as_bytes("layer 1")).value();
  ring_ = reopen().value();
  const KeyInfo found = ring_->find("a").value();
  EXPECT_EQ(found.id, made.id);
  EXPECT_EQ(found.owner, 7u);
  EXPECT_EQ(found.created, made.created);
  EXPECT_TRUE(ring_->unwrap(made.id, wrapped, as_bytes("layer 1")).value() == data_key);
}

TEST_F(KeyRingTest, DataKeysOpenOnlyWhereTheyBelong) {
  const KeyId a = ring_->create("a", 0).value().id;
  const KeyId b = ring_->create("b", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  WrappedKey wrapped = ring_->wrap(a, data_key, as_bytes("layer 1")).value();
  EXPECT_EQ(wrapped.version, 1u);
  EXPECT_TRUE(ring_->unwrap(a, wrapped, as_bytes("layer 1")).value() == data_key);
  EXPECT_EQ(ring_->unwrap(a, wrapped, as_bytes("layer 2")).error().code, Errc::corrupt);
  EXPECT_EQ(ring_->unwrap(b, wrapped, as_bytes("layer 1")).error().code, Errc::corrupt);
  wrapped.version = 2;
  EXPECT_EQ(ring_->unwrap(a, wrapped, as_bytes("layer 1")).error().code, Errc::corrupt);
}

TEST_F(KeyRingTest, EveryChangedByteOfAWrappedKeyIsNoticed) {
  const KeyId id = ring_->create("a", 0).value().id;
  const WrappedKey wrapped = ring_->wrap(id, root_key(), {}).value();
  for (std::size_t i = 0; i < wrapped.bytes.size(); ++i) {
    WrappedKey changed = wrapped;
    changed.bytes[i] = static_cast<char>(changed.bytes[i] ^ 4);
    EXPECT_EQ(ring_->unwrap(id, changed, {}).error().code, Errc::corrupt) << i;
  }
  EXPECT_EQ(ring_->unwrap(id, WrappedKey{1, ""}, {}).error().code, Errc::corrupt);
}

TEST_F(KeyRingTest, EveryChangedByteOfARecordIsNoticed) {
  const KeyId id = ring_->create("k", 0).value().id;
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

TEST_F(KeyRingTest, RecordsDoNotStandInForEachOther) {
  const KeyId a = ring_->create("a", 0).value().id;
  const KeyId b = ring_->create("b", 0).value().id;
  std::swap(records_.records[a], records_.records[b]);
  EXPECT_EQ(reopen().error().code, Errc::corrupt);
}

TEST_F(KeyRingTest, AnotherRootOpensNothing) {
  ASSERT_TRUE(ring_->create("a", 0));
  EXPECT_EQ(KeyRing::open(crypto::Key::random().value(), records_).error().code, Errc::corrupt);
}

TEST_F(KeyRingTest, LaterRecordVersionIsToldFromDamage) {
  const KeyId id = ring_->create("k", 0).value().id;
  rewrite(id, [](std::string& body) { body[0] = 2; });
  EXPECT_EQ(reopen().error().code, Errc::wrong_version);
}

TEST_F(KeyRingTest, ContradictoryRecordsAreRefused) {
  const KeyId id = ring_->create("k", 0).value().id;
  const std::string good = records_.records.at(id);
  const auto refused = [&](auto change) {
    records_.records[id] = good;
    rewrite(id, change);
    auto ring = reopen();
    return !ring && ring.error().code == Errc::corrupt;
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

TEST_F(KeyRingTest, RecordCarriesStatesGranteesAndVersions) {
  const KeyId id = ring_->create("k", 0).value().id;
  const WrappedKey wrapped = ring_->wrap(id, root_key(), {}).value();
  rewrite(id, [](std::string& body) {
    body[kStateAt] = 3;
    body[kDeletionAt] = 5;
    body[kDeletionAt + 8] = 2;  // two grantees
    body.insert(kDeletionAt + 12, std::string("\x01\0\0\0\x02\0\0\0", 8));
  });
  ring_ = reopen().value();
  const KeyInfo info = ring_->find("k").value();
  EXPECT_EQ(info.state, KeyState::pending_deletion);
  EXPECT_EQ(info.deletion, 5);
  EXPECT_EQ(info.grantees, (std::vector<uid_t>{1, 2}));
  EXPECT_EQ(ring_->wrap(id, root_key(), {}).error().code, Errc::key_revoked);
  EXPECT_EQ(ring_->unwrap(id, wrapped, {}).error().code, Errc::key_revoked);
  rewrite(id, [](std::string& body) {
    body[kStateAt] = 1;
    body[kDeletionAt] = 0;
  });
  ring_ = reopen().value();
  EXPECT_TRUE(ring_->unwrap(id, wrapped, {}).value() == root_key());
}

TEST_F(KeyRingTest, RotatedKeyOpensOldVersionsAndWrapsWithTheNewest) {
  const KeyId id = ring_->create("k", 0).value().id;
  const WrappedKey first = ring_->wrap(id, root_key(), {}).value();
  const auto master_wrap = crypto::KeyWrap::create(root_key(), "rekeyfs v1 master key").value();
  const std::string context =
      Writer().put_string("rekeyfs v1 master key").put_raw(id).put(std::uint32_t{2}).put_string("").take();
  const std::string second_master = master_wrap.wrap(as_bytes(context), crypto::Key::random().value()).value();
  rewrite(id, [&](std::string& body) {
    body[kVersionAt] = 2;
    body[kDeletionAt + 12] = 2;  // two versions
    body += Writer().put(std::uint32_t{2}).put_string(second_master).take();
  });
  ring_ = reopen().value();
  EXPECT_TRUE(ring_->unwrap(id, first, {}).value() == root_key());
  const WrappedKey second = ring_->wrap(id, root_key(), {}).value();
  EXPECT_EQ(second.version, 2u);
  EXPECT_TRUE(ring_->unwrap(id, second, {}).value() == root_key());
  EXPECT_EQ(ring_->unwrap(id, WrappedKey{1, second.bytes}, {}).error().code, Errc::corrupt);
}

// Layers are made inside a catalog transaction, and the catalog keeps the records: if a key being created held up
// those who only use keys, the two would wait for each other for ever.
TEST_F(KeyRingTest, KeysCanBeUsedWhileARecordIsPut) {
  const KeyId id = ring_->create("a", 0).value().id;
  bool used = false;
  records_.during_put = [&] { std::thread([&] { used = ring_->wrap(id, root_key(), {}).has_value(); }).join(); };
  EXPECT_TRUE(ring_->create("b", 0));
  EXPECT_TRUE(used);
}

TEST_F(KeyRingTest, ManyThreadsUseOneRing) {
  const KeyId shared = ring_->create("shared", 0).value().id;
  std::atomic<int> wrong = 0;
  std::atomic<int> made = 0;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (ring_->create("key-" + std::to_string(i), 0)) ++made;
        const crypto::Key key = crypto::Key::random().value();
        const auto wrapped = ring_->wrap(shared, key, as_bytes("c"));
        if (!wrapped || !(ring_->unwrap(shared, *wrapped, as_bytes("c")).value() == key)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(made, 50);
  EXPECT_EQ(ring_->list().value().size(), 51u);
  EXPECT_EQ(reopen().value()->list().value().size(), 51u);
}

TEST(KeyStateTest, Names) {
  EXPECT_EQ(name_of(KeyState::enabled), "enabled");
  EXPECT_EQ(name_of(KeyState::disabled), "disabled");
  EXPECT_EQ(name_of(KeyState::pending_deletion), "pending-deletion");
}

// --- the life of a key -----------------------------------------------------------------------------------------

TEST_F(KeyRingTest, ADisabledKeyWrapsNothingAndItsGateIsShut) {
  const KeyId id = ring_->create("k", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey wrapped = ring_->wrap(id, data_key, {}).value();
  const auto gate = ring_->gate_of(id);
  EXPECT_TRUE(gate->is_open());
  EXPECT_EQ(ring_->disable(id).value().state, KeyState::disabled);
  EXPECT_FALSE(gate->is_open());
  EXPECT_EQ(ring_->wrap(id, data_key, {}).error().code, Errc::key_revoked);
  EXPECT_EQ(ring_->unwrap(id, wrapped, {}).error().code, Errc::key_revoked);
  EXPECT_EQ(ring_->rotate(id).error().code, Errc::key_revoked);
  ring_ = reopen().value();
  EXPECT_FALSE(ring_->gate_of(id)->is_open());
  ASSERT_TRUE(ring_->enable(id));
  EXPECT_TRUE(ring_->gate_of(id)->is_open());
  EXPECT_TRUE(ring_->unwrap(id, wrapped, {}));
}

TEST_F(KeyRingTest, TheGateOfAnUnknownKeyIsShut) {
  EXPECT_FALSE(ring_->gate_of(KeyId{})->is_open());
}

TEST_F(KeyRingTest, OldVersionsUnwrapUntilTheyAreForgotten) {
  const KeyId id = ring_->create("k", 0).value().id;
  const crypto::Key data_key = crypto::Key::random().value();
  const WrappedKey first = ring_->wrap(id, data_key, {}).value();
  EXPECT_EQ(ring_->rotate(id).value().version, 2u);
  const WrappedKey second = ring_->wrap(id, data_key, {}).value();
  EXPECT_EQ(second.version, 2u);
  ring_ = reopen().value();
  EXPECT_EQ(ring_->find(id).value().oldest, 1u);
  EXPECT_TRUE(ring_->unwrap(id, first, {}));
  ASSERT_TRUE(ring_->forget_versions(id, 2));
  EXPECT_EQ(ring_->find(id).value().oldest, 2u);
  EXPECT_EQ(ring_->unwrap(id, first, {}).error().code, Errc::corrupt);
  EXPECT_TRUE(ring_->unwrap(id, second, {}));
}

TEST_F(KeyRingTest, TheNewestVersionIsNeverForgotten) {
  const KeyId id = ring_->create("k", 0).value().id;
  const WrappedKey wrapped = ring_->wrap(id, crypto::Key::random().value(), {}).value();
  ASSERT_TRUE(ring_->forget_versions(id, 7));
  EXPECT_TRUE(ring_->unwrap(id, wrapped, {}));
}

TEST_F(KeyRingTest, ADeletionIsPendingUntilItIsDue) {
  const KeyId id = ring_->create("k", 0).value().id;
  const auto gate = ring_->gate_of(id);
  EXPECT_EQ(ring_->cancel_deletion(id).error().code, Errc::invalid);
  ASSERT_TRUE(ring_->schedule_deletion(id, now() + 3600'000'000'000));
  EXPECT_FALSE(gate->is_open());
  EXPECT_EQ(ring_->enable(id).error().code, Errc::invalid);
  EXPECT_EQ(ring_->disable(id).error().code, Errc::invalid);
  EXPECT_EQ(ring_->remove(id).error().code, Errc::invalid);
  EXPECT_EQ(ring_->cancel_deletion(id).value().deletion, 0);
  EXPECT_TRUE(gate->is_open());
  ASSERT_TRUE(ring_->schedule_deletion(id, now()));
  ASSERT_TRUE(ring_->remove(id));
  EXPECT_EQ(ring_->find("k").error().code, Errc::no_key);
  EXPECT_FALSE(gate->is_open());
  EXPECT_TRUE(records_.records.empty());
  EXPECT_TRUE(ring_->create("k", 0)) << "the name is free again";
}

TEST_F(KeyRingTest, GrantsAreKeptSorted) {
  const KeyId id = ring_->create("k", 0).value().id;
  for (uid_t user : {30u, 10u, 20u, 10u}) ASSERT_TRUE(ring_->grant(id, user));
  ring_ = reopen().value();
  EXPECT_EQ(ring_->find(id).value().grantees, (std::vector<uid_t>{10, 20, 30}));
  EXPECT_EQ(ring_->revoke(id, 20).value().grantees, (std::vector<uid_t>{10, 30}));
  EXPECT_EQ(ring_->revoke(id, 20).error().code, Errc::invalid);
}

TEST_F(KeyRingTest, AChangeThatCannotBeRecordedDoesNotHappen) {
  const KeyId id = ring_->create("k", 0).value().id;
  records_.full = true;
  EXPECT_EQ(ring_->disable(id).error().code, Errc::no_space);
  EXPECT_EQ(ring_->rotate(id).error().code, Errc::no_space);
  EXPECT_TRUE(ring_->gate_of(id)->is_open());
  EXPECT_EQ(ring_->find(id).value().version, 1u);
}

}  // namespace
}  // namespace rekeyfs::kms
