// Rewrapping data keys with a slow key service, which must be called outside of transactions and locks.
#include "tests/support/faulty_store.h"

namespace rekeyfs {
namespace {

using Verb = test::WatchedKeys::Verb;

class RewrapTest : public test::FaultyStore {
 protected:
  void SetUp() override {
    FaultyStore::SetUp();
    key_ = parts_->keys->create("tenant", 0).value().id;
    layer_ = make_layer({}, key_);
    ASSERT_TRUE(write(layer_, 0, 'a'));
    ASSERT_TRUE(parts_->keys->rotate(key_));
  }
  Status put(const std::optional<blocks::LayerRegistry::Rewrapped>& rewrapped) {
    catalog::WriteTxn txn(*parts_->catalog);
    RK_TRY(parts_->layers->put_rewrapped(txn, rewrapped.value()));
    RK_TRY(txn.commit());
    return {};
  }
  kms::KeyVersion version() { return parts_->layers->record_of(layer_)->data_key.version; }

  kms::KeyId key_{};
  LayerId layer_;
};

TEST_F(RewrapTest, AChangeOfTheRecordMeanwhileStays) {
  parts_->masters->set_hook([&](Verb) -> Status {
    catalog::WriteTxn txn(*parts_->catalog);
    RK_TRY(parts_->layers->disown(txn, layer_));
    RK_TRY(txn.commit());
    return {};
  });
  const auto rewrapped = parts_->layers->rewrap(layer_);
  ASSERT_TRUE(rewrapped) << test::error_text(rewrapped);
  parts_->masters->set_hook(nullptr);
  ASSERT_TRUE(put(*rewrapped));
  EXPECT_FALSE(parts_->layers->record_of(layer_)->owner);
  EXPECT_EQ(version(), 2u);
  ASSERT_TRUE(parts_->checkpointer->run());  // versions are forgotten at an opening, after its checkpoint
  ASSERT_TRUE(parts_->keys->forget_versions(key_, 2));
  kill();
  EXPECT_EQ(block(layer_, 0), "a");
}

TEST_F(RewrapTest, WhatWasWrappedAnewMeanwhileStays) {
  const auto old = parts_->layers->rewrap(layer_);
  ASSERT_TRUE(parts_->keys->rotate(key_));
  ASSERT_TRUE(put(*parts_->layers->rewrap(layer_)));
  ASSERT_TRUE(put(*old));
  EXPECT_EQ(version(), 3u);
  EXPECT_FALSE(parts_->layers->rewrap(layer_)->has_value()) << "nothing is left to be done";
}

TEST_F(RewrapTest, AKeyThatIsUnwrappedWhileItIsTakenAwayIsNotKept) {
  kill();  // the data key is not in memory
  const auto taken = layer(layer_);
  parts_->masters->set_hook([&](Verb verb) -> Status {
    parts_->masters->set_hook(nullptr);
    EXPECT_EQ(verb, Verb::unwrap);
    RK_TRY(parts_->keys->disable(key_));
    taken->forget_key();
    return {};
  });
  EXPECT_EQ(block(layer_, 0).substr(0, 11), "key revoked");
  ASSERT_TRUE(parts_->keys->enable(key_));
  int asked = 0;
  parts_->masters->set_hook([&](Verb) -> Status { return ++asked, Status{}; });
  EXPECT_EQ(block(layer_, 0), "a");
  EXPECT_EQ(asked, 1) << "the data key was kept";
}

TEST_F(RewrapTest, AServiceThatCannotBeReachedIsAskedAgain) {
  kill();
  parts_->masters->set_hook([](Verb) -> Status { return fail(Errc::io, "the key service cannot be reached"); });
  EXPECT_EQ(block(layer_, 0), "input/output error: the key service cannot be reached");
  EXPECT_FALSE(parts_->layers->rewrap(layer_));
  parts_->masters->set_hook(nullptr);
  EXPECT_EQ(block(layer_, 0), "a");
}

}  // namespace
}  // namespace rekeyfs
