// The parts of an open store below the name space, put together as Store does it, over a storage with faults:
// full disks, failing syncs and power cuts.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "engine/kms/key_ring.h"
#include "engine/store/catalog_key_records.h"
#include "engine/store/checkpointer.h"
#include "engine/store/recovery.h"
#include "tests/unit/storage_faults.h"
#include "tests/unit/store_copies.h"
#include "tests/unit/temp_directory.h"

namespace rekeyfs {
namespace {

using blocks::Layer;
using blocks::LayerRegistry;
using test::FaultyStorage;

constexpr std::size_t kBlock = blocks::kBlockSize;

class FaultyStoreTest : public test::TempDirectory {
 protected:
  struct Parts {
    std::unique_ptr<io::ReservedStorage> storage;
    std::unique_ptr<catalog::Catalog> catalog;
    std::unique_ptr<store::CatalogKeyRecords> records;
    std::unique_ptr<kms::KeyRing> keys;
    std::unique_ptr<LayerRegistry> layers;
    store::Health health{false};
    std::unique_ptr<store::Checkpointer> checkpointer;
  };

  void SetUp() override {
    storage_ = std::make_unique<FaultyStorage>(directory());
    for (const char* name : {"catalog", "journal", "layers"}) ASSERT_TRUE(storage_->make_directory(name));
    for (std::uint64_t low = 0; low < 256; ++low) ASSERT_TRUE(storage_->make_directory(blocks::layer_directory(LayerId{low})));
    ASSERT_TRUE(catalog::Catalog::create(*storage_, path("catalog"), root_, id_, {}));
    ASSERT_TRUE(storage_->sync_all());
    open();
  }

  // What Store::open() does.
  void open() {
    parts_.reset();
    parts_ = std::make_unique<Parts>();
    parts_->storage = std::make_unique<io::ReservedStorage>(std::make_unique<test::BorrowedStorage>(*storage_), blocks::SlotFiles::is_one);
    ASSERT_TRUE(parts_->storage->adopt());
    io::ReservedStorage& storage = *parts_->storage;
    auto opened = catalog::Catalog::open(storage, path("catalog"), root_, id_);
    ASSERT_TRUE(opened) << test::error_text(opened);
    parts_->catalog = std::move(*opened);
    const catalog::Journal::History history = parts_->catalog->take_history();
    parts_->records = std::make_unique<store::CatalogKeyRecords>(*parts_->catalog);
    parts_->keys = std::move(*kms::KeyRing::open(root_, *parts_->records));
    parts_->layers = LayerRegistry::create(storage, *parts_->catalog, *parts_->keys, root_, id_).value();
    parts_->checkpointer = std::make_unique<store::Checkpointer>(storage, *parts_->catalog, *parts_->layers, parts_->health);
    ASSERT_TRUE(store::replay(*parts_->catalog, *parts_->layers, history));
    ASSERT_TRUE(parts_->catalog->start(history.next_segment));
    ASSERT_TRUE(parts_->checkpointer->run());
    parts_->layers->close_all();
  }
  // The process is killed.
  void kill() {
    storage_->set_hook(nullptr);
    open();
  }
  void cut_power(std::uint64_t seed, unsigned kept) {
    parts_.reset();
    storage_->power_cut(seed, kept);
    open();
  }

  LayerId make_layer() {
    LayerRegistry::Plan plan;
    plan.owner = Ino{7};
    const auto made = parts_->layers->make(plan);
    EXPECT_TRUE(made);
    catalog::WriteTxn txn(*parts_->catalog);
    LayerRegistry::put(txn, *made);
    EXPECT_TRUE(txn.commit());
    return made->id;
  }
  std::shared_ptr<Layer> layer(LayerId id) {
    auto found = parts_->layers->get(id);
    EXPECT_TRUE(found) << test::error_text(found);
    return found ? *found : nullptr;
  }
  Status write(LayerId id, std::uint64_t block, char fill) {
    return layer(id)->write(block * kBlock, as_bytes(std::string(kBlock, fill)), {});
  }
  Status sync(LayerId id) { return parts_->checkpointer->sync_journal({layer(id)}); }
  // The character a block is full of, or what is wrong with it.
  std::string block(LayerId id, std::uint64_t index) {
    std::string got(kBlock, '?');
    const Status status = layer(id)->read(index * kBlock, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    if (!status) return test::error_text(status.error());
    if (got.find_first_not_of(got[0]) != std::string::npos) return "a mixture";
    return got[0] == '\0' ? "hole" : got.substr(0, 1);
  }

  const crypto::Key root_ = std::move(*crypto::Key::random());
  const Uuid id_{std::byte{1}};
  std::unique_ptr<FaultyStorage> storage_;
  std::unique_ptr<Parts> parts_;
};

// The journal goes on in a new segment with every checkpoint of a mount; all of it counts.
TEST_F(FaultyStoreTest, WhatWasWrittenAfterALaterCheckpointSurvivesAKill) {
  const LayerId id = make_layer();
  for (std::uint64_t index = 0; index < 4; ++index) {
    ASSERT_TRUE(write(id, index, static_cast<char>('a' + index)));
    if (index == 3) break;  // the last is in the journal only
    ASSERT_TRUE(parts_->checkpointer->run());
  }
  kill();
  for (std::uint64_t index = 0; index < 4; ++index) {
    EXPECT_EQ(block(id, index), std::string(1, static_cast<char>('a' + index)));
  }
}

// A checkpoint that met a full disk leaves everything to the next one.
TEST_F(FaultyStoreTest, NothingIsLostWhenACheckpointFailsAtAnyLayer) {
  for (int failing = 1; failing <= 3; ++failing) {
    std::vector<LayerId> ids;
    for (int i = 0; i < 3; ++i) {
      ids.push_back(make_layer());
      ASSERT_TRUE(write(ids.back(), 0, static_cast<char>('a' + i)));
    }
    int tables = 0;
    storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
      if (operation == FaultyStorage::Operation::write && path.ends_with(".table") && ++tables >= failing) return fail(Errc::no_space);
      return {};
    });
    EXPECT_FALSE(parts_->checkpointer->run());
    storage_->set_hook(nullptr);
    ASSERT_TRUE(parts_->checkpointer->run());
    kill();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(block(ids[i], 0), std::string(1, static_cast<char>('a' + i))) << "failed at table " << failing;
    }
  }
}

// The same when the table's file cannot be made.
TEST_F(FaultyStoreTest, NothingIsLostWhenATableFileCannotBeMade) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::open && path.ends_with(".table")) return fail(Errc::no_space);
    return {};
  });
  (void)parts_->checkpointer->run();
  storage_->set_hook(nullptr);
  ASSERT_TRUE(parts_->checkpointer->run());
  kill();
  EXPECT_EQ(block(id, 0), "a");
}

TEST_F(FaultyStoreTest, SyncAllIsKeptOnAFullDiskToo) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->sync_all());
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "a");
  ASSERT_TRUE(write(id, 1, 'b'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::write && path.ends_with(".table")) return fail(Errc::no_space);
    return {};
  });
  ASSERT_FALSE(parts_->checkpointer->run());
  ASSERT_TRUE(parts_->checkpointer->sync_all());
  cut_power(2, 0);
  EXPECT_EQ(block(id, 1), "b");
}

TEST_F(FaultyStoreTest, SyncAllTellsOfAFailingDisk) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::sync && path.find(".data") != std::string::npos) return fail(Errc::io);
    return {};
  });
  EXPECT_EQ(parts_->checkpointer->sync_all().error().code, Errc::io);
  EXPECT_EQ(parts_->checkpointer->sync_all().error().code, Errc::read_only) << "a retry could lie";
}

// A full disk while the journal starts a segment does not keep later checkpoints from starting one.
TEST_F(FaultyStoreTest, CheckpointsGoOnAfterASegmentCouldNotBeMade) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::write && path.starts_with("journal/")) return fail(Errc::no_space);
    return {};
  });
  EXPECT_FALSE(parts_->checkpointer->run());
  storage_->set_hook(nullptr);
  const Status status = parts_->checkpointer->run();
  EXPECT_TRUE(status) << test::error_text(status.error());
  ASSERT_TRUE(write(id, 1, 'b'));
  kill();
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_EQ(block(id, 1), "b");
}

// A write that comes while another's sync runs is not synced; after a cut its block is old or new, never damaged.
TEST_F(FaultyStoreTest, AWriteDuringASyncIsOldOrNewAfterAPowerCut) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(sync(id));
  ASSERT_TRUE(write(id, 1, 'b'));
  bool written = false;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::sync && path.find(".data") != std::string::npos && !std::exchange(written, true))
      return write(id, 0, 'A');
    return {};
  });
  ASSERT_TRUE(sync(id));
  ASSERT_TRUE(written);
  cut_power(1, 0);
  EXPECT_EQ(block(id, 1), "b");
  EXPECT_THAT(block(id, 0), ::testing::AnyOf("a", "A"));
}

// Two who sync at once: neither returns before the data is durable.
TEST_F(FaultyStoreTest, ASyncWaitsForTheOneUnderWay) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  std::atomic<bool> second_returned = false;
  bool too_early = false;
  std::thread second;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation != FaultyStorage::Operation::sync || path.find(".data") == std::string::npos || second.joinable()) return {};
    second = std::thread([&] {
      EXPECT_TRUE(parts_->checkpointer->sync_journal({layer(id)}));
      second_returned = true;
    });
    for (int i = 0; i < 200 && !second_returned; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    too_early = second_returned;
    return {};
  });
  ASSERT_TRUE(sync(id));
  second.join();
  EXPECT_FALSE(too_early) << "fsync returned while the data it promises was still being written";
}

// Random writes and syncs to several layers, then a power cut that loses any part of what was not synced.
TEST_F(FaultyStoreTest, AfterAPowerCutEveryBlockIsAVersionSinceItsLastSync) {
  const std::uint64_t seed = test::number_from_environment("RK_MODEL_SEED", std::random_device{}());
  SCOPED_TRACE("RK_MODEL_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kBlocks = 6;
  for (int round = 0; round < 25; ++round) {
    std::vector<LayerId> ids{make_layer(), make_layer(), make_layer()};
    std::map<std::pair<std::size_t, std::uint64_t>, std::string> allowed;  // versions since the last sync
    for (std::size_t i = 0; i < ids.size(); ++i)
      for (std::uint64_t index = 0; index < kBlocks; ++index) allowed[{i, index}] = std::string(1, '\0');
    ASSERT_TRUE(parts_->checkpointer->sync_journal({}));
    for (int operation = 0; operation < 60; ++operation) {
      const std::size_t which = random() % ids.size();
      const std::uint64_t drawn = random() % 20;
      if (drawn < 15) {
        const std::uint64_t index = random() % kBlocks;
        const char fill = static_cast<char>('a' + random() % 26);
        ASSERT_TRUE(write(ids[which], index, fill));
        allowed[{which, index}] += fill;
      } else if (drawn < 18) {
        ASSERT_TRUE(sync(ids[which]));
        for (std::uint64_t index = 0; index < kBlocks; ++index) allowed[{which, index}] = allowed[{which, index}].substr(allowed[{which, index}].size() - 1);
      } else {
        ASSERT_TRUE(parts_->checkpointer->run());
        for (auto& [at, versions] : allowed) versions = versions.substr(versions.size() - 1);
      }
    }
    cut_power(random(), static_cast<unsigned>(random() % 101));
    for (const auto& [at, versions] : allowed) {
      const std::string got = block(ids[at.first], at.second);
      const char version = got == "hole" ? '\0' : got[0];
      EXPECT_TRUE((got.size() == 1 || got == "hole") && versions.find(version) != std::string::npos)
          << "round " << round << ", layer " << at.first << ", block " << at.second << ": " << got << ", allowed: " << versions;
    }
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace rekeyfs
