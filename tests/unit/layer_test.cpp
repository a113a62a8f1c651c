// Layer, its registry and the checkpointer over a storage with faults: versions of blocks, bases, slots, deletion.
#include "engine/blocks/layer.h"

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

#include <atomic>
#include <sstream>
#include <thread>

#include "tests/unit/faulty_store.h"

namespace rekeyfs {
namespace {

using blocks::Layer;
using blocks::LayerRegistry;
using test::FaultyStorage;
using Operation = FaultyStorage::Operation;

bool is(const std::string& path, std::string_view kind) { return path.find(kind) != std::string::npos; }

class LayerTest : public test::FaultyStore {
 protected:
  LayerId make_over(LayerId base, std::uint64_t size) {
    LayerRegistry::Plan plan;
    plan.owner = Ino{8};
    plan.base = base;
    plan.size = size;
    plan.from_base = true;
    const auto made = parts_->layers->make(plan);
    EXPECT_TRUE(made);
    catalog::WriteTxn txn(*parts_->catalog);
    LayerRegistry::put(txn, *made);
    EXPECT_TRUE(txn.commit());
    return made->id;
  }
  std::string read(LayerId id, std::uint64_t offset, std::size_t size) {
    std::string got(size, '?');
    const Status status = layer(id)->read(offset, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    return status ? got : test::error_text(status.error());
  }
  Status put(LayerId id, std::uint64_t offset, std::string_view bytes) { return layer(id)->write(offset, as_bytes(bytes), {}); }
  std::string file_of(LayerId id, const std::string& ending) const { return path(blocks::layer_path(id) + ending); }
  // In slots, up to the end of the file.
  std::uint64_t spill_slots(LayerId id) const {
    return std::filesystem::exists(file_of(id, ".spill0")) ? (std::filesystem::file_size(file_of(id, ".spill0")) + kBlock - 1) / kBlock : 0;
  }
  // While the hook says `when` for the first time, `meanwhile` runs.
  void during(Operation operation, std::string_view kind, std::function<void()> meanwhile) {
    auto done = std::make_shared<bool>(false);
    storage_->set_hook([=](Operation asked, const std::string& path) -> Status {
      if (asked == operation && is(path, kind) && !std::exchange(*done, true)) meanwhile();
      return {};
    });
  }
};

// --- syncs -----------------------------------------------------------------------------------------------------------

// What a replica reads from stays owed to the next sync when one fails, and to the one that comes meanwhile.
TEST_F(LayerTest, ABaseIsMadeDurableByTheSyncAfterAFailedOne) {
  const LayerId base = make_layer();
  ASSERT_TRUE(write(base, 0, 'a'));
  parts_->checkpointer->must_precede_sync(layer(base));
  storage_->set_hook([](Operation operation, const std::string& path) -> Status {
    return operation == Operation::sync && is(path, ".data") ? fail(Errc::no_space) : Status{};
  });
  EXPECT_FALSE(parts_->checkpointer->sync_journal({}));
  storage_->set_hook(nullptr);
  ASSERT_TRUE(parts_->checkpointer->sync_journal({}));
  cut_power(1, 0);
  EXPECT_EQ(block(base, 0), "a");
}

TEST_F(LayerTest, ASyncWaitsForABaseThatAnotherOneIsSyncing) {
  const LayerId base = make_layer();
  ASSERT_TRUE(write(base, 0, 'a'));
  parts_->checkpointer->must_precede_sync(layer(base));
  std::atomic<bool> second_returned = false;
  bool too_early = false;
  std::thread second;
  during(Operation::sync, ".data", [&] {
    second = std::thread([&] {
      EXPECT_TRUE(parts_->checkpointer->sync_journal({}));
      second_returned = true;
    });
    for (int i = 0; i < 200 && !second_returned; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    too_early = second_returned;
  });
  ASSERT_TRUE(parts_->checkpointer->sync_journal({}));
  second.join();
  EXPECT_FALSE(too_early);
}

TEST_F(LayerTest, AfterAFailedSyncNoSyncSucceeds) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([](Operation operation, const std::string& path) -> Status {
    return operation == Operation::sync && is(path, ".data") ? fail(Errc::io) : Status{};
  });
  EXPECT_FALSE(sync(id));
  storage_->set_hook(nullptr);
  EXPECT_FALSE(sync(id)) << "a retry would lie";
}

TEST_F(LayerTest, ASyncThatFoundNoSpaceIsMadeUpFor) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([](Operation operation, const std::string& path) -> Status {
    return operation == Operation::sync && is(path, ".data") ? fail(Errc::no_space) : Status{};
  });
  EXPECT_FALSE(sync(id));
  storage_->set_hook(nullptr);
  ASSERT_TRUE(sync(id));
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "a");
}

TEST_F(LayerTest, TheNameOfANewTableIsDurableAfterACheckpoint) {
  for (const std::size_t layers : {1, 12}) {  // few are synced file by file
    std::vector<LayerId> ids;
    for (std::size_t i = 0; i < layers; ++i) {
      ids.push_back(make_layer());
      ASSERT_TRUE(write(ids.back(), 0, 'a'));
      ASSERT_TRUE(sync(ids.back()));  // so that the directory is not synced for the data's sake
    }
    ASSERT_TRUE(parts_->checkpointer->run());
    cut_power(1, 0);
    for (const LayerId id : ids) EXPECT_EQ(block(id, 0), "a") << layers << " layers";
  }
}

// --- deletion, damage, limits ------------------------------------------------------------------------------------------

// Copy-on-read may store a block while its image is being deleted: after the record that erased the layer.
TEST_F(LayerTest, AChangeOfALayerThatIsGoneIsNoErrorInRecovery) {
  for (const bool in_the_catalog : {false, true}) {
    const LayerId id = make_layer();
    ASSERT_TRUE(write(id, 0, 'a'));
    std::shared_ptr<Layer> held = layer(id);
    {
      catalog::WriteTxn txn(*parts_->catalog);
      ASSERT_TRUE(parts_->layers->release(txn, id));
      ASSERT_TRUE(txn.commit());
    }
    if (in_the_catalog) {
      ASSERT_TRUE(parts_->checkpointer->run());
    }
    ASSERT_TRUE(held->write(0, as_bytes("b"), {}));
    held.reset();
    std::ostringstream log;
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(log);
    sink->set_level(spdlog::level::err);
    spdlog::default_logger()->sinks().push_back(sink);
    kill();
    spdlog::default_logger()->sinks().pop_back();
    EXPECT_EQ(log.str(), "");
  }
}

// An image whose table is damaged in one place goes on everywhere else, durably.
TEST_F(LayerTest, ChangesBesideADamagedPlaceOfTheTableAreNotLost) {
  const LayerId id = make_layer();
  const LayerId other = make_layer();
  constexpr std::uint64_t kFar = 20000;  // under another inner page
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(write(id, kFar, 'z'));
  ASSERT_TRUE(parts_->checkpointer->run());
  parts_->layers->close_all();
  std::fstream table(file_of(id, ".table"), std::ios::in | std::ios::out | std::ios::binary);
  table.seekp(4 * 4096 + 9);  // written as leaf, inner page, leaf, this one, root
  table.put('!');
  table.close();
  open();
  EXPECT_THAT(block(id, kFar), ::testing::StartsWith("damaged data"));
  for (const char fill : {'b', 'c', 'd'}) {
    ASSERT_TRUE(write(id, 0, fill));
    ASSERT_TRUE(write(other, 0, fill));
    ASSERT_TRUE(parts_->checkpointer->run());
    kill();
    EXPECT_EQ(block(id, 0), std::string(1, fill));
    EXPECT_EQ(block(other, 0), std::string(1, fill));
    EXPECT_THAT(block(id, kFar), ::testing::StartsWith("damaged data"));
  }
}

TEST_F(LayerTest, AMissingTableDoesNotStopTheOthers) {
  const LayerId id = make_layer();
  const LayerId other = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->run());
  parts_->layers->close_all();
  std::filesystem::remove(file_of(id, ".table"));
  open();
  EXPECT_THAT(block(id, 0), ::testing::StartsWith("damaged data"));
  EXPECT_FALSE(write(id, 0, 'b'));
  ASSERT_TRUE(layer(id)->resize(0, {}));
  ASSERT_TRUE(write(id, 0, 'c'));
  ASSERT_TRUE(write(other, 0, 'd'));
  ASSERT_TRUE(parts_->checkpointer->run());
  kill();
  EXPECT_EQ(block(id, 0), "c");
  EXPECT_EQ(block(other, 0), "d");
}

// A nonce is never used twice and never cut to the width of its field.
TEST_F(LayerTest, SealingEndsWithTheLastCounter) {
  catalog::Epochs epochs(root_, catalog::kCounterEnd - 1);
  epochs.add(EpochId{1}, {});
  epochs.set_current(EpochId{1});
  blocks::LayerCipher cipher(crypto::Suite::aes_256_gcm, id_, LayerId{1}, [] { return crypto::Key::random(); }, nullptr, epochs);
  const std::string plain(100, 'a');
  std::vector<std::byte> sealed(plain.size());
  blocks::BlockEntry entry;
  ASSERT_TRUE(cipher.seal(0, as_bytes(plain), sealed, entry));
  std::array<std::byte, blocks::kEntrySize> raw;
  blocks::encode_entry(entry, raw);
  EXPECT_EQ(*blocks::decode_entry(raw), entry);
  for (int i = 0; i < 3; ++i) {
    const Status status = cipher.seal(0, as_bytes(plain), sealed, entry);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Errc::read_only);
    EXPECT_THAT(status.error().message, ::testing::HasSubstr("mount it again"));
  }
}

TEST_F(LayerTest, TheLastMountIsTheLast) {
  const std::string other = path("worn");
  std::filesystem::create_directories(other + "/catalog");
  FaultyStorage storage(other);
  ASSERT_TRUE(storage.make_directory("journal"));
  const std::string last = catalog::make_key(catalog::Table::epoch, catalog::kLastEpoch.value() - 1);
  ASSERT_TRUE(catalog::Catalog::create(storage, other + "/catalog", root_, id_, {{last, std::string(32, 's')}}));
  for (const bool allowed : {true, false}) {
    auto opened = catalog::Catalog::open(storage, other + "/catalog", root_, id_);
    ASSERT_TRUE(opened) << test::error_text(opened);
    const catalog::SegmentNumber next = (*opened)->take_history().next_segment;
    const Status started = (*opened)->start(next);
    ASSERT_EQ(started.has_value(), allowed);
    if (!allowed) {
      EXPECT_THAT(started.error().message, ::testing::HasSubstr("new store"));
      continue;
    }
    const auto first = (*opened)->freeze();
    ASSERT_TRUE(first);
    ASSERT_TRUE((*opened)->commit_frozen(*first, {}));
  }
}

}  // namespace
}  // namespace rekeyfs
