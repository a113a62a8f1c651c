// The parts of an open store below the name space, assembled as in Store, on a storage with faults: full disks, failing
// syncs and power cuts.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "tests/support/environment.h"
#include "tests/support/faulty_store.h"

namespace rekeyfs {
namespace {

using test::FaultyStorage;

class FaultyStoreTest : public test::FaultyStore {};

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

// As an opening does it that takes up replications before it is done with a rotation that was interrupted.
TEST_F(FaultyStoreTest, ALayerIsReadThatWasOpenBeforeItsKeysOldVersionWent) {
  const auto key = parts_->keys->create("key", 0);
  ASSERT_TRUE(key);
  const LayerId id = make_layer({}, key->id);
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->run());
  parts_->layers->close_all();
  const std::shared_ptr<blocks::Layer> opened = layer(id);
  const auto rotated = parts_->keys->rotate(key->id);
  ASSERT_TRUE(rotated) << test::error_text(rotated);
  const auto rewrapped = parts_->layers->rewrap(id);
  ASSERT_TRUE(rewrapped && *rewrapped);
  {
    catalog::WriteTxn txn(*parts_->catalog);
    ASSERT_TRUE(parts_->layers->put_rewrapped(txn, **rewrapped));
    ASSERT_TRUE(txn.commit());
  }
  ASSERT_TRUE(parts_->keys->forget_versions(key->id, rotated->version));
  EXPECT_EQ(block(id, 0), "a");
}

// A block that is left out for want of its data may be the one that the content ended in: then the size must not grow
// over what an earlier, longer content left behind the end.
TEST_F(FaultyStoreTest, WhatWasCutOffDoesNotComeBackAfterAPowerCut) {
  constexpr std::uint64_t kEnd = 2 * kBlock + 100;
  int grown = 0, stayed = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const LayerId id = make_layer();
    for (const std::uint64_t index : {0, 1, 2}) ASSERT_TRUE(write(id, index, 'x'));
    ASSERT_TRUE(layer(id)->resize(kEnd, {}));
    ASSERT_TRUE(sync(id));
    const std::string longer(2 * kBlock, 'n');
    ASSERT_TRUE(layer(id)->write(2 * kBlock, as_bytes(longer), {}));
    if (seed % 2 != 0) {
      ASSERT_TRUE(layer(id)->resize(6 * kBlock, {}));
    }
    ASSERT_TRUE(sync(make_layer()));  // the journal is durable now, but not what was written
    cut_power(seed, 85);
    const std::uint64_t size = layer(id)->size();
    std::string behind(size - kEnd, '?');
    ASSERT_TRUE(layer(id)->read(kEnd, {reinterpret_cast<std::byte*>(behind.data()), behind.size()}));
    EXPECT_EQ(behind.find('x'), std::string::npos);
    (size > kEnd ? grown : stayed) += 1;
  }
  EXPECT_GT(std::min(grown, stayed), 5) << grown << " grew, " << stayed << " did not";
}

// The segment it had begun is the second one that recovery reads.
TEST_F(FaultyStoreTest, WhatWasWrittenDuringACheckpointThatFailedSurvivesAKill) {
  const LayerId id = make_layer();
  const LayerId other = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  bool written = false;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation != FaultyStorage::Operation::write || !path.ends_with(".table")) return {};
    if (!std::exchange(written, true)) {
      EXPECT_TRUE(write(other, 0, 'b'));
    }
    return fail(Errc::no_space);
  });
  EXPECT_FALSE(parts_->checkpointer->run());
  ASSERT_TRUE(written);
  kill();
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_EQ(block(other, 0), "b");
}

// Else a checkpoint between the two would trim the record and not know of the layer.
TEST_F(FaultyStoreTest, AChangeIsKnownToCheckpointsBeforeItIsOnRecord) {
  const LayerId id = make_layer();
  ASSERT_TRUE(parts_->checkpointer->run());
  ASSERT_FALSE(parts_->layers->has_changed());
  bool recorded = false, known = true;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation != FaultyStorage::Operation::write || !path.starts_with("journal/")) return {};
    recorded = true;
    known = known && parts_->layers->has_changed();
    return {};
  });
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook(nullptr);
  EXPECT_TRUE(recorded && known);
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

TEST_F(FaultyStoreTest, ASyncCoversTheSegmentThatAFailedCheckpointLeft) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::write && path.ends_with(".table")) return fail(Errc::no_space);
    return {};
  });
  ASSERT_FALSE(parts_->checkpointer->run());
  storage_->set_hook(nullptr);
  ASSERT_TRUE(sync(id));
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "a");
}

TEST_F(FaultyStoreTest, SyncAllTellsOfAFaultyDisk) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation == FaultyStorage::Operation::sync && path.find(".data") != std::string::npos) return fail(Errc::io);
    return {};
  });
  EXPECT_EQ(parts_->checkpointer->sync_all().error().code, Errc::io);
  EXPECT_EQ(parts_->checkpointer->sync_all().error().code, Errc::read_only) << "a retry could lie";
}

// The store stays writable then, so the next sync must not think that it was done: of the data, and of its file's name.
TEST_F(FaultyStoreTest, ASyncThatMetAFullDiskIsDoneAgain) {
  for (const bool of_names : {false, true}) {
    const LayerId id = make_layer();
    ASSERT_TRUE(write(id, 0, 'a'));
    storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
      const bool meant = of_names ? path == blocks::layer_directory(id) : path.find(".data") != std::string::npos;
      return operation == FaultyStorage::Operation::sync && meant ? fail(Errc::no_space) : Status{};
    });
    EXPECT_EQ(sync(id).error().code, Errc::no_space);
    storage_->set_hook(nullptr);
    ASSERT_TRUE(sync(id));
    cut_power(1, 0);
    EXPECT_EQ(block(id, 0), "a") << (of_names ? "names" : "data");
  }
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

// Its record is in the journal's next segment, which a power cut may take back after the checkpoint.
TEST_F(FaultyStoreTest, AWriteDuringACheckpointKeepsTheVersionBeforeIt) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->run());
  ASSERT_TRUE(write(id, 1, 'b'));
  bool written = false;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    const bool is_table = operation == FaultyStorage::Operation::write && path.ends_with(".table");
    return is_table && !std::exchange(written, true) ? write(id, 0, 'A') : Status{};
  });
  ASSERT_TRUE(parts_->checkpointer->run());
  ASSERT_TRUE(written);
  ASSERT_TRUE(write(id, 0, 'B'));  // goes to a slot that is free
  ASSERT_TRUE(layer(id)->blocks().sync());  // as the kernel may at any time
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_EQ(block(id, 1), "b");
}

// Whatever it is: a rename, say, must not be there without what was written before it.
TEST_F(FaultyStoreTest, NothingIsLeftOfWhatCameAfterABlockThatIsLost) {
  const LayerId id = make_layer();
  const LayerId other = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(sync(other));  // covers the record of the block, and not the block
  const std::string key = catalog::make_key(catalog::Table::rotation, 1);
  {
    catalog::WriteTxn txn(*parts_->catalog);
    txn.put(key, "later");
    ASSERT_TRUE(txn.commit());
  }
  ASSERT_TRUE(parts_->catalog->sync_journal());  // as the kernel may at any time
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "hole");
  EXPECT_EQ(parts_->catalog->get(key).value(), std::nullopt);
}

TEST_F(FaultyStoreTest, ASyncMakesDurableWhatAnyReplicaReadsFrom) {
  const LayerId source = make_layer();
  ASSERT_TRUE(write(source, 0, 'a'));
  parts_->checkpointer->must_precede_sync(layer(source));
  const LayerId replica = make_layer(source);
  const LayerId other = make_layer();
  ASSERT_TRUE(sync(other));
  cut_power(1, 0);
  EXPECT_EQ(block(replica, 0), "a");
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

// Until a removal is durable, a power cut may take it back: then it is done again.
TEST_F(FaultyStoreTest, FilesThatAPowerCutBringsBackAreRemoved) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->run());
  {
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->release(txn, id);
    ASSERT_TRUE(released);
    ASSERT_TRUE(txn.commit());
    parts_->layers->forget(*released);
  }
  ASSERT_TRUE(parts_->checkpointer->run());  // removes the files
  const LayerId other = make_layer();
  ASSERT_TRUE(write(other, 0, 'b'));
  ASSERT_TRUE(parts_->checkpointer->run());  // nothing says any more that they are to be removed
  cut_power(1, 0);
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_FALSE(std::filesystem::exists(path(blocks::layer_path(id) + ".data0")));
  EXPECT_FALSE(std::filesystem::exists(path(blocks::layer_path(id) + ".table")));
  EXPECT_EQ(test::journal_of(directory()).size(), 1u);
  EXPECT_EQ(block(other, 0), "b");
}

// Before, a power cut may take the deletion back.
TEST_F(FaultyStoreTest, FilesGoAfterTheirDeletionIsDurable) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(parts_->checkpointer->run());
  {
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->release(txn, id);
    ASSERT_TRUE(released && txn.commit());
    parts_->layers->forget(*released);
  }
  const std::uint64_t before = parts_->catalog->checkpointed().checkpoint;
  bool removed = false, is_durable = true;
  storage_->set_hook([&](FaultyStorage::Operation operation, const std::string& path) -> Status {
    if (operation != FaultyStorage::Operation::remove || !path.starts_with(blocks::layer_path(id))) return {};
    removed = true;
    is_durable = is_durable && parts_->catalog->checkpointed().checkpoint > before;
    return {};
  });
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_TRUE(removed && is_durable);
}

// Random writes and syncs to several layers, then a power cut that loses any part of what was not synced.
TEST_F(FaultyStoreTest, AfterAPowerCutEveryBlockIsAVersionSinceItsLastSync) {
  const std::uint64_t seed = test::number_from_environment("REKEYFS_TEST_SEED", std::random_device{}());
  SCOPED_TRACE("REKEYFS_TEST_SEED=" + std::to_string(seed));
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

TEST_F(FaultyStoreTest, AllFilesOfADeletedLayerGoHoweverFarApartTheirNumbersAre) {
  constexpr std::uint64_t kFar = std::uint64_t{40} << 26;  // a block whose slot is in the 41st data file
  const LayerId id = make_layer();
  const auto files = [&] {
    const auto names = storage_->list(blocks::layer_directory(id)).value();
    return std::count_if(names.begin(), names.end(), [&](const std::string& name) { return blocks::layer_of_file(name) == id; });
  };
  ASSERT_TRUE(write(id, 0, 'a') && write(id, kFar, 'b'));
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_EQ(files(), 3);
  {
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->release(txn, id);
    ASSERT_TRUE(released);
    ASSERT_TRUE(txn.commit());
    parts_->layers->forget(*released);
  }
  ASSERT_TRUE(parts_->checkpointer->run());
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_EQ(files(), 0);
}

}  // namespace
}  // namespace rekeyfs
