// Layer, its registry and the checkpointer on a storage with faults: versions of blocks, bases, slots, deletion.
#include "engine/blocks/layer.h"

#include <gmock/gmock.h>
#include <pthread.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <future>
#include <sstream>
#include <thread>

#include "tests/support/environment.h"
#include "tests/support/faulty_store.h"

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
    auto made = parts_->layers->draw({});
    EXPECT_TRUE(made);
    made->record.owner = Ino{8};
    made->place_over(base, size, true);
    const auto opened = parts_->layers->open_new(*made);
    EXPECT_TRUE(opened);
    catalog::WriteTxn txn(*parts_->catalog);
    LayerRegistry::put(txn, *made);
    EXPECT_TRUE(txn.commit());
    return made->id;
  }
  // Erases its record, as the deletion of its image does.
  void erase(LayerId id) {
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->release(txn, id);
    ASSERT_TRUE(released && txn.commit());
    parts_->layers->forget(*released);
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
  // Runs `work` on a stack that a function that calls itself some hundred times does not fit in.
  static void on_small_stack(std::function<void()> work) {
    constexpr std::size_t kStack = 256 << 10;
    pthread_attr_t attributes;
    ASSERT_EQ(::pthread_attr_init(&attributes), 0);
    ASSERT_EQ(::pthread_attr_setstacksize(&attributes, kStack), 0);
    const auto start = [](void* function) -> void* {
      (*static_cast<std::function<void()>*>(function))();
      return nullptr;
    };
    pthread_t thread;
    ASSERT_EQ(::pthread_create(&thread, &attributes, start, &work), 0);
    ASSERT_EQ(::pthread_join(thread, nullptr), 0);
    ::pthread_attr_destroy(&attributes);
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

// --- versions of a block -----------------------------------------------------------------------------------------

TEST_F(LayerTest, ATornWriteLeavesTheVersionBefore) {
  const LayerId id = make_layer();
  for (const char fill : {'a', 'b', 'c'}) {
    ASSERT_TRUE(write(id, 0, fill));
    storage_->set_hook([](Operation operation, const std::string& path) -> Status {
      return operation == Operation::write && is(path, "layers/") ? fail(Errc::io) : Status{};
    });
    EXPECT_FALSE(write(id, 0, 'X'));
    storage_->set_hook(nullptr);
    EXPECT_EQ(block(id, 0), std::string(1, fill));
    kill();
    EXPECT_EQ(block(id, 0), std::string(1, fill));
  }
}

TEST_F(LayerTest, AWriteThatCannotBeRecordedLeavesTheVersionBefore) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  storage_->set_hook([](Operation operation, const std::string& path) -> Status {
    return operation == Operation::write && is(path, "journal/") ? fail(Errc::no_space) : Status{};
  });
  EXPECT_FALSE(write(id, 0, 'X'));
  EXPECT_FALSE(write(id, 1, 'X'));
  storage_->set_hook(nullptr);
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_EQ(layer(id)->size(), kBlock);
  ASSERT_TRUE(write(id, 1, 'b'));
  kill();
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_EQ(block(id, 1), "b");
}

// A power cut may take the journal's end back, a kill does not: both versions stay until a checkpoint.
TEST_F(LayerTest, NeitherTheLastSyncedNorTheLastAcknowledgedVersionIsOverwritten) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(sync(id));
  for (const char fill : {'b', 'c', 'd', 'e', 'f'}) ASSERT_TRUE(write(id, 0, fill));
  cut_power(1, 0);
  EXPECT_EQ(block(id, 0), "a");
}

TEST_F(LayerTest, PartsOfBlocksKeepTheRest) {
  const LayerId id = make_layer();
  ASSERT_TRUE(put(id, 0, std::string(3 * kBlock, 'a')));
  ASSERT_TRUE(put(id, kBlock - 3, "bbbbbb"));
  EXPECT_EQ(read(id, kBlock - 5, 10), "aabbbbbbaa");
  kill();
  EXPECT_EQ(read(id, kBlock - 5, 10), "aabbbbbbaa");
  EXPECT_EQ(read(id, 3 * kBlock - 2, 5), std::string("aa\0\0\0", 5));
}

TEST_F(LayerTest, BlocksOfZerosAreHoles) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  EXPECT_EQ(layer(id)->stored(), kBlock);
  ASSERT_TRUE(write(id, 0, '\0'));
  EXPECT_EQ(layer(id)->stored(), 0u);
  EXPECT_EQ(*layer(id)->find_data(0), kBlock);
  EXPECT_EQ(*layer(id)->find_hole(0), 0u);
}

TEST_F(LayerTest, ADamagedBlockIsAnErrorAndTheOthersAreNot) {
  const LayerId id = make_layer();
  for (std::uint64_t index = 0; index < 3; ++index) ASSERT_TRUE(write(id, index, 'a'));
  std::fstream file(file_of(id, ".data0"), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(kBlock + 77));
  file.put('!');
  file.close();
  EXPECT_EQ(block(id, 0), "a");
  EXPECT_THAT(block(id, 1), ::testing::StartsWith("damaged data"));
  EXPECT_THAT(read(id, 0, 3 * kBlock), ::testing::StartsWith("damaged data"));
  EXPECT_EQ(block(id, 2), "a");
  ASSERT_TRUE(write(id, 1, 'b'));
  EXPECT_EQ(block(id, 1), "b");
}

// --- sizes and bases -----------------------------------------------------------------------------------------------

TEST_F(LayerTest, WhatWasCutOffNeverComesBack) {
  const LayerId id = make_layer();
  ASSERT_TRUE(put(id, 0, std::string(3 * kBlock, 'a')));
  ASSERT_TRUE(layer(id)->resize(kBlock + 10, {}));
  ASSERT_TRUE(layer(id)->resize(3 * kBlock, {}));
  EXPECT_EQ(read(id, kBlock + 8, 4), std::string("aa\0\0", 4));
  EXPECT_EQ(block(id, 2), "hole");
  kill();
  EXPECT_EQ(read(id, kBlock + 8, 4), std::string("aa\0\0", 4));
  EXPECT_EQ(block(id, 2), "hole");
}

TEST_F(LayerTest, ALayerReadsFromItsBaseUntilItIsWritten) {
  const LayerId base = make_layer();
  ASSERT_TRUE(put(base, 0, std::string(2 * kBlock + 100, 'a')));
  const LayerId top = make_over(base, 2 * kBlock + 100);
  EXPECT_TRUE(layer(top)->is_all_base());
  EXPECT_EQ(block(top, 1), "a");
  ASSERT_TRUE(put(top, kBlock + 5, "b"));
  EXPECT_EQ(read(top, kBlock + 4, 3), "aba");
  EXPECT_EQ(read(base, kBlock + 4, 3), "aaa");
  kill();
  EXPECT_EQ(read(top, kBlock + 4, 3), "aba");
  EXPECT_EQ(read(top, 2 * kBlock + 98, 4), std::string("aa\0\0", 4));
  EXPECT_FALSE(layer(top)->is_all_base());
}

TEST_F(LayerTest, AShortenedLayerDoesNotShowItsBaseWhenItGrows) {
  const LayerId base = make_layer();
  ASSERT_TRUE(put(base, 0, std::string(4 * kBlock, 'a')));
  const LayerId top = make_over(base, 4 * kBlock);
  ASSERT_TRUE(layer(top)->resize(kBlock + 10, {}));
  ASSERT_TRUE(layer(top)->resize(4 * kBlock, {}));
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_EQ(block(top, 0), "a");
    EXPECT_EQ(read(top, kBlock + 8, 4), std::string("aa\0\0", 4));
    EXPECT_EQ(block(top, 2), "hole");
    EXPECT_EQ(block(top, 3), "hole");
    kill();
  }
}

TEST_F(LayerTest, FillingMakesALayerIndependent) {
  const LayerId base = make_layer();
  ASSERT_TRUE(write(base, 0, 'a'));
  ASSERT_TRUE(write(base, 5, 'b'));  // holes between
  const LayerId top = make_over(base, 6 * kBlock);
  for (BlockIndex index = 0;;) {
    const auto done = layer(top)->fill(index, 2);
    ASSERT_TRUE(done) << test::error_text(done);
    if (*done == 0) break;
    index += *done;
  }
  layer(top)->drop_base();
  EXPECT_EQ(block(top, 0), "a");
  EXPECT_EQ(block(top, 3), "hole");
  EXPECT_EQ(block(top, 5), "b");
  EXPECT_EQ(layer(top)->stored(), 2 * kBlock);
}

TEST_F(LayerTest, WhatAReaderGotIsKeptOnlyWhereTheBaseIsStillRead) {
  const LayerId base = make_layer();
  ASSERT_TRUE(put(base, 0, std::string(2 * kBlock, 'a')));
  const LayerId top = make_over(base, 2 * kBlock);
  ASSERT_TRUE(write(top, 0, 'n'));
  ASSERT_TRUE(layer(top)->keep(0, as_bytes(std::string(2 * kBlock, 'a'))));
  EXPECT_EQ(block(top, 0), "n");
  EXPECT_EQ(block(top, 1), "a");
  EXPECT_EQ(layer(top)->stored(), 2 * kBlock);
}

// --- who reads from a layer ----------------------------------------------------------------------------------------

TEST_F(LayerTest, ALayerIsSharedWhileACopyIsMadeOfIt) {
  const LayerId base = make_layer();
  EXPECT_FALSE(layer(base)->is_shared());
  {
    blocks::BaseRef first(layer(base));
    const blocks::BaseRef second(layer(base)), moved(std::move(first));
    EXPECT_TRUE(layer(base)->is_shared());
  }
  EXPECT_FALSE(layer(base)->is_shared());
}

TEST_F(LayerTest, ALayerOverAnotherSharesItWhetherItIsOpenOrNot) {
  const LayerId base = make_layer();
  EXPECT_FALSE(layer(base)->is_shared());
  const std::shared_ptr<Layer> held = layer(base);
  const LayerId top = make_over(base, kBlock);
  EXPECT_TRUE(held->is_shared()) << "never opened again";
  static_cast<void>(layer(top));
  parts_->layers->close_all();
  EXPECT_TRUE(held->is_shared()) << "closed";
  EXPECT_TRUE(layer(base)->is_shared()) << "opened alone";
  static_cast<void>(layer(top));
  EXPECT_TRUE(layer(base)->is_shared()) << "opened with it";
  kill();
  EXPECT_TRUE(layer(base)->is_shared()) << "mounted anew";
}

TEST_F(LayerTest, ALayerThatWasNeverPutOnRecordLeavesItsBaseAlone) {
  const LayerId base = make_layer();
  auto made = parts_->layers->draw({});
  ASSERT_TRUE(made);
  made->place_over(base, 0, false);
  auto opened = parts_->layers->open_new(*made);
  ASSERT_TRUE(opened);
  EXPECT_TRUE(layer(base)->is_shared());
  opened->reset();
  EXPECT_FALSE(layer(base)->is_shared());
}

TEST_F(LayerTest, ALayerIsSharedUntilTheLastOneOverItIsDeleted) {
  const LayerId base = make_layer();
  const LayerId open = make_over(base, kBlock), closed = make_over(base, kBlock);
  static_cast<void>(layer(open));
  EXPECT_TRUE(layer(base)->is_shared());
  erase(open);
  EXPECT_TRUE(layer(base)->is_shared());
  erase(closed);
  EXPECT_FALSE(layer(base)->is_shared());
}

TEST_F(LayerTest, ALayerIsSharedUntilTheOneOverItStandsAlone) {
  const LayerId base = make_layer();
  const LayerId top = make_over(base, 0);
  const std::shared_ptr<Layer> filled = layer(top);
  {
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->detach(txn, top);
    ASSERT_TRUE(released && txn.commit());
    parts_->layers->forget(*released);
  }
  EXPECT_TRUE(layer(base)->is_shared()) << "its readers may be reading from it yet";
  filled->drop_base();
  EXPECT_FALSE(layer(base)->is_shared());
}

TEST_F(LayerTest, ALayerThatIsItsOwnBaseIsRefused) {
  const LayerId id = make_layer();
  blocks::LayerRecord record = parts_->layers->record_of(id).value();
  record.base = id;
  catalog::WriteTxn txn(*parts_->catalog);
  txn.put(catalog::make_key(catalog::Table::layer, id.value()), record.encode());
  ASSERT_TRUE(txn.commit());
  parts_->layers->close_all();
  const auto refused = parts_->layers->get(id);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::corrupt);
}

// As a disk gets that is cloned every night and goes on being written.
TEST_F(LayerTest, AChainOfBasesMayBeLongerThanAStackIsDeep) {
  constexpr int kLength = 2000;
  const LayerId bottom = make_layer();
  ASSERT_TRUE(write(bottom, 0, 'a'));
  LayerId top = bottom;
  for (int i = 0; i < kLength; ++i) {
    const LayerId below = top;
    top = make_over(below, 2 * kBlock);
    catalog::WriteTxn txn(*parts_->catalog);
    ASSERT_TRUE(parts_->layers->disown(txn, below) && txn.commit());
  }
  kill();
  on_small_stack([&] {
    EXPECT_EQ(block(top, 0), "a");
    EXPECT_GE(layer(top)->zeros_at(kBlock).value_or(0), kBlock);
    catalog::WriteTxn txn(*parts_->catalog);
    const auto released = parts_->layers->release(txn, top);
    ASSERT_TRUE(released && txn.commit());
    EXPECT_EQ(released->size(), kLength + 1u);
    parts_->layers->forget(*released);
    parts_->layers->close_all();
  });
}

// The end of a range to be zeroed was taken for the image's end, while a writer was just making the image longer.
TEST_F(LayerTest, ZeroingToTheEndSparesWhatIsBeingAppended) {
  const LayerId id = make_layer();
  ASSERT_TRUE(put(id, 0, std::string(100, 'a')));
  std::thread zeroing;
  during(Operation::write, "layers/", [&] {
    zeroing = std::thread([&] { EXPECT_TRUE(layer(id)->zero(0, 100, {})); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // it waits for the writer's blocks by now
  });
  ASSERT_TRUE(put(id, 100, "bbb"));
  zeroing.join();
  storage_->set_hook(nullptr);
  EXPECT_EQ(read(id, 99, 4), std::string("\0bbb", 4));
}

TEST_F(LayerTest, ZeroingAnywhereIsZeroingThere) {
  const LayerId id = make_layer();
  std::string expected(3 * kBlock + 100, 'a');
  ASSERT_TRUE(put(id, 0, expected));
  const std::uint64_t far = std::uint64_t{1} << 40;
  const std::pair<std::uint64_t, std::uint64_t> ranges[] = {
      {10, 5}, {kBlock - 1, 2}, {kBlock, kBlock}, {2 * kBlock + 5, kBlock}, {3 * kBlock + 50, far}, {far, 5}, {7, 0}, {50, ~std::uint64_t{0}}};
  for (const auto& [offset, size] : ranges) {
    ASSERT_TRUE(layer(id)->zero(offset, size, {}));
    for (std::uint64_t at = offset; at < expected.size() && at - offset < size; ++at) expected[at] = '\0';
    ASSERT_EQ(read(id, 0, expected.size()), expected) << offset << " + " << size;
    ASSERT_EQ(layer(id)->size(), expected.size());
  }
}

// --- readers and writers side by side --------------------------------------------------------------------------------

// A block is read whole, in one version or another, while it is rewritten and checkpoints give its slots back.
TEST_F(LayerTest, ReadersSeeWholeVersionsOfBlocksThatAreRewritten) {
  const LayerId id = make_layer();
  constexpr std::uint64_t kBlocks = 8;
  for (std::uint64_t index = 0; index < kBlocks; ++index) ASSERT_TRUE(write(id, index, 'a'));
  const std::shared_ptr<Layer> shared = layer(id);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      std::string got(kBlocks * kBlock, '?');
      while (!stop) {
        if (!shared->read(0, {reinterpret_cast<std::byte*>(got.data()), got.size()})) ++wrong;
        for (std::uint64_t index = 0; index < kBlocks; ++index) {
          const std::string_view one = std::string_view(got).substr(index * kBlock, kBlock);
          if (one.find_first_not_of(one[0]) != std::string::npos) ++wrong;
        }
      }
    });
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      while (!stop) {
        const std::string bytes(kBlock, static_cast<char>('a' + random() % 26));
        if (!shared->write(random() % kBlocks * kBlock, as_bytes(bytes), {})) ++wrong;
      }
    });
  }
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(parts_->checkpointer->run());
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// The append may take long: the disk throttles whoever writes to it.
TEST_F(LayerTest, ReadersDoNotWaitForAWritersAppend) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(write(id, 1, 'a'));
  std::future<std::string> reader;
  auto arrived = std::future_status::deferred;
  during(Operation::write, "journal/", [&] {
    reader = std::async(std::launch::async, [&] { return block(id, 0) + block(id, 1) + std::to_string(layer(id)->size()); });
    arrived = reader.wait_for(std::chrono::seconds(20));
  });
  ASSERT_TRUE(write(id, 1, 'b'));
  storage_->set_hook(nullptr);
  EXPECT_EQ(arrived, std::future_status::ready) << "it waited for the append";
  EXPECT_EQ(reader.get(), "aa" + std::to_string(2 * kBlock)) << "what is not on record yet is not shown";
  EXPECT_EQ(block(id, 1), "b");
}

// As if the record were made, and the checkpoint that comes then did not know of it.
TEST_F(LayerTest, ACheckpointDuringAnAppendLosesNothing) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  std::future<bool> checkpoint;
  during(Operation::write, "journal/", [&] {
    checkpoint = std::async(std::launch::async, [&] { return parts_->checkpointer->run().has_value(); });
    checkpoint.wait_for(std::chrono::milliseconds(50));  // as far as it gets
  });
  ASSERT_TRUE(write(id, 0, 'b'));
  storage_->set_hook(nullptr);
  EXPECT_TRUE(checkpoint.get());
  EXPECT_EQ(block(id, 0), "b");
  kill();
  EXPECT_EQ(block(id, 0), "b");
}

TEST_F(LayerTest, AppendsOfManyThreadsAllArrive) {
  const LayerId id = make_layer();
  std::shared_ptr<Layer> shared = layer(id);
  constexpr std::uint64_t kPieces = 400, kPiece = 100;  // in four threads, interleaved
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::uint64_t i = t; i < kPieces; i += 4)
        EXPECT_TRUE(shared->write(i * kPiece, as_bytes(std::string(kPiece, static_cast<char>('a' + i % 26))), {}));
    });
  for (std::thread& thread : threads) thread.join();
  shared.reset();  // what it works with goes
  kill();
  const std::string got = read(id, 0, kPieces * kPiece);
  for (std::uint64_t i = 0; i < kPieces; ++i)
    ASSERT_EQ(got.substr(i * kPiece, kPiece), std::string(kPiece, static_cast<char>('a' + i % 26))) << i;
}

// --- slots ---------------------------------------------------------------------------------------------------------

TEST_F(LayerTest, ABlockThatRestsComesHome) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  EXPECT_EQ(spill_slots(id), 0u);
  ASSERT_TRUE(write(id, 0, 'b'));
  EXPECT_EQ(spill_slots(id), 1u);
  ASSERT_TRUE(parts_->checkpointer->run());
  ASSERT_TRUE(write(id, 0, 'c'));
  EXPECT_EQ(spill_slots(id), 1u);
  EXPECT_EQ(block(id, 0), "c");
}

// Rewriting within a checkpoint takes a slot for each version; after it the same ones serve again, without the file
// system giving back and allocating. Only a layer at rest gives its space back.
TEST_F(LayerTest, SlotsAreWrittenAgainAndGivenBackAtRest) {
  const LayerId id = make_layer();
  std::uint64_t punched = 0;
  storage_->set_hook([&](Operation operation, const std::string&) -> Status {
    if (operation == Operation::punch) ++punched;
    return {};
  });
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(write(id, 0, static_cast<char>('a' + i % 26)));
    ASSERT_TRUE(parts_->checkpointer->run());
  }
  EXPECT_LE(spill_slots(id), 102u);
  EXPECT_EQ(punched, 0u);
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_GT(punched, 0u);
  EXPECT_LE(punched, 4u) << "neighbours are punched as one";
  EXPECT_EQ(block(id, 0), std::string(1, static_cast<char>('a' + 49 % 26)));
  EXPECT_FALSE(parts_->layers->has_changed()) << "at rest nothing remains to be done";
  kill();
  EXPECT_EQ(block(id, 0), std::string(1, static_cast<char>('a' + 49 % 26)));
}

// What is given back at rest may be the home of a block that is being written at this moment.
TEST_F(LayerTest, ASlotIsNotPunchedUnderAWriter) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  ASSERT_TRUE(write(id, 0, 'b'));  // in a spill slot: home is in limbo
  ASSERT_TRUE(parts_->checkpointer->run());  // idle
  during(Operation::punch, ".data", [&] { EXPECT_TRUE(write(id, 0, 'c')); });
  ASSERT_TRUE(parts_->checkpointer->run());
  EXPECT_EQ(block(id, 0), "c");
  during(Operation::write, ".data", [&] { EXPECT_TRUE(parts_->checkpointer->run()); });
  for (const char fill : {'d', 'e', 'f', 'g'}) {
    ASSERT_TRUE(write(id, 0, fill));
    EXPECT_EQ(block(id, 0), std::string(1, fill));
    ASSERT_TRUE(parts_->checkpointer->run());
    EXPECT_EQ(block(id, 0), std::string(1, fill));
  }
}

// Nor does recovery keep slots for writers that will not come: the layer is closed after it.
TEST_F(LayerTest, RecoveryGivesBackWhatWasSuperseded) {
  const LayerId id = make_layer();
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(write(id, 0, static_cast<char>('a' + i % 26)));
  std::uint64_t punched = 0;
  storage_->set_hook([&](Operation operation, const std::string&) -> Status {
    if (operation == Operation::punch) ++punched;
    return {};
  });
  open();
  EXPECT_GT(punched, 0u);
  storage_->set_hook(nullptr);
  EXPECT_EQ(block(id, 0), std::string(1, static_cast<char>('a' + 49 % 26)));
}

TEST_F(LayerTest, FailedWritesGiveTheirSlotsBack) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  for (const char* refused : {".spill", "journal/"}) {
    for (int round = 0; round < 60; ++round) {
      storage_->set_hook([&](Operation operation, const std::string& path) -> Status {
        return operation == Operation::write && is(path, refused) ? fail(Errc::no_space) : Status{};
      });
      ASSERT_FALSE(write(id, 0, 'X'));
      storage_->set_hook(nullptr);
      ASSERT_TRUE(parts_->checkpointer->run());
    }
    EXPECT_LE(spill_slots(id), 3u);
  }
  EXPECT_EQ(block(id, 0), "a");
  ASSERT_TRUE(write(id, 0, 'b'));
  kill();
  EXPECT_EQ(block(id, 0), "b");
}

// While the files of slots are punched no lock is held.
TEST_F(LayerTest, AWriteThatFailsWhileOthersArePunchedGivesItsSlotBack) {
  const LayerId id = make_layer();
  ASSERT_TRUE(write(id, 0, 'a'));
  bool fails = false;
  storage_->set_hook([&](Operation operation, const std::string& path) -> Status {
    if (operation == Operation::punch && is(path, ".data") && !std::exchange(fails, true)) {
      EXPECT_FALSE(write(id, 0, 'X'));
      fails = false;
    }
    return fails && operation == Operation::write && is(path, "journal/") ? fail(Errc::no_space) : Status{};
  });
  for (int round = 0; round < 40; ++round) {
    ASSERT_TRUE(write(id, 0, static_cast<char>('a' + round % 26)));
    for (int rest = 0; rest < 3; ++rest) ASSERT_TRUE(parts_->checkpointer->run());
  }
  EXPECT_LE(spill_slots(id), 3u);
}

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

// A write is on record before the table is changed; then a page of the table cannot be read.
class UnreadTableTest : public LayerTest {
 protected:
  static constexpr BlockIndex kLeaf = blocks::kFanout, kInner = kLeaf * blocks::kFanout;

  void SetUp() override {
    LayerTest::SetUp();
    id_ = make_layer();
    for (BlockIndex inner = 0; inner < 100; ++inner) ASSERT_TRUE(put(id_, inner * kInner * kBlock, "x"));
    ASSERT_TRUE(put(id_, kLeaf * kBlock, "x"));
    ASSERT_TRUE(parts_->checkpointer->run());
    parts_->layers->page_budget().pages += blocks::PageBudget::kMost;  // other layers'
    ASSERT_TRUE(put(id_, kInner * kBlock, "y"));                       // lets go of all leaves but its own
  }

  // Of two blocks, under two leaves. These are read to find slots, and again to change them.
  Status put_across(char fill) { return put(id_, (kLeaf - 1) * kBlock, std::string(2 * kBlock, fill)); }
  void fail_to_apply(Errc code) {
    unsigned reads = 0;
    storage_->set_hook([&](Operation asked, const std::string& path) -> Status {
      const bool fails = asked == Operation::read && is(path, ".table") && ++reads == 3;
      return fails ? Status(fail(code, "unreadable")) : Status{};
    });
    EXPECT_FALSE(put_across('a'));
    storage_->set_hook(nullptr);
    EXPECT_GE(reads, 3u);
  }

  LayerId id_;
};

// What was recorded and forgotten would have its slot written again, and not be whole in a recovery.
TEST_F(UnreadTableTest, KeepsNoOtherPageFromBeingChanged) {
  fail_to_apply(Errc::io);
  for (const BlockIndex index : {kLeaf - 1, kLeaf}) ASSERT_TRUE(write(id_, index, 'c'));
  kill();
  for (const BlockIndex index : {kLeaf - 1, kLeaf}) EXPECT_EQ(block(id_, index), "c");
}

// So would the slots of what is yet to be put into the table, if they looked free.
TEST_F(UnreadTableTest, IsCaughtUpWithBeforeSlotsAreChosen) {
  fail_to_apply(Errc::no_memory);
  storage_->set_hook([](Operation asked, const std::string& path) -> Status {
    return asked == Operation::write && path.starts_with("journal/") ? Status(fail(Errc::io)) : Status{};
  });
  EXPECT_FALSE(put_across('b'));
  storage_->set_hook(nullptr);
  ASSERT_TRUE(write(id_, 0, 'c'));
  kill();
  EXPECT_EQ(block(id_, 0), "c");
  EXPECT_EQ(block(id_, kLeaf - 1) + block(id_, kLeaf), "aa");
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

TEST_F(LayerTest, ABlockNumberThatNoSlotHasIsRefused) {
  const LayerId id = make_layer();
  const Status status = write(id, blocks::kSpillBit, 'a');
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Errc::too_large);
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

// --- many small appends ------------------------------------------------------------------------------------------------

// Each append makes a new version of the last block. What they leave behind is bounded, and closing does not have to
// clear it all away.
class AppendTest : public test::TempDirectory {};

TEST_F(AppendTest, ManySmallAppendsLeaveLittleBehind) {
  ASSERT_TRUE(Engine::initialize(path("store"), test::test_credential()));
  auto opened = Engine::open(path("store"), test::test_credential());
  ASSERT_TRUE(opened) << test::error_text(opened);
  Engine& engine = **opened;
  constexpr std::uint64_t kAppends = 40000;
  {
    auto created = engine.files().create(kRootIno, "log", 0600, 2, {0, 0});
    ASSERT_TRUE(created) << test::error_text(created);
    for (std::uint64_t i = 0; i < kAppends; ++i) ASSERT_TRUE(engine.files().write(*created->file, i * 7, as_bytes("abcdef\n")));
    ASSERT_TRUE(engine.files().flush(*created->file));
  }
  ASSERT_TRUE(engine.close());
  std::uint64_t slots = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path("store/layers")))
    if (entry.is_regular_file()) slots += entry.file_size() / blocks::kBlockSize;
  EXPECT_LT(slots, 24000u);
}

// --- a disk that fails now and then ----------------------------------------------------------------------------------

// Random changes across the pages of a table, of which so many are in memory that they are read again and again, and
// kills. A change that failed may be there or not.
struct LayerFault {
  bool is_encrypted, has_base;
  const char* name;
};
class LayerFaultTest : public LayerTest, public ::testing::WithParamInterface<LayerFault> {
 protected:
  static constexpr BlockIndex kLeaf = blocks::kFanout, kLeaves = 200, kBlocks = kLeaf * kLeaves;

  void SetUp() override {
    LayerTest::SetUp();
    std::optional<kms::KeyId> key;
    if (GetParam().is_encrypted) key = parts_->keys->create("key", 0)->id;
    id_ = make_layer({}, key);
    for (BlockIndex leaf = 1; leaf <= kLeaves; ++leaf) {
      ASSERT_TRUE(write(id_, leaf * kLeaf - 1, 'z'));
      model_[leaf * kLeaf - 1] = "z";
    }
    if (GetParam().has_base) id_ = make_layer(id_, key);
    ASSERT_TRUE(parts_->checkpointer->run());
    go_on();
  }

  // Now and then the disk fails, and there are no pages left for this layer.
  void go_on() {
    parts_->layers->page_budget().pages += blocks::PageBudget::kMost;
    storage_->set_hook([this](Operation asked, const std::string& path) -> Status {
      const unsigned one_in = is(path, ".table") ? 6 : 20;
      if (asked == Operation::sync || random_() % one_in > 0) return {};
      constexpr Errc kErrors[] = {Errc::io, Errc::no_memory, Errc::no_space, Errc::too_many_files};
      return fail(kErrors[random_() % 4], "now and then");
    });
  }
  void look_and_kill() {
    storage_->set_hook(nullptr);
    look();
    if (HasFatalFailure()) return;
    kill();
    look();
    model_ = seen_;  // and stays what it is
    go_on();
  }
  void look() {
    ASSERT_TRUE(layer(id_)->resize(kBlocks * kBlock, {}));
    for (BlockIndex index = 0; index < kBlocks; ++index) {
      if (!model_.contains(index) && index % 16 > 0) continue;  // a sample of what nothing was done with
      const std::string got = block(id_, index), version = got == "hole" ? "0" : got;
      ASSERT_NE(versions(index).find(version), std::string::npos) << "block " << index << ": " << got << ", allowed: " << versions(index);
      seen_[index] = version;
    }
  }

  std::string versions(BlockIndex index) const {
    const auto known = model_.find(index);
    return known == model_.end() ? "0" : known->second;
  }
  void note(BlockIndex first, BlockIndex end, char fill, bool done) {
    for (BlockIndex index = first; index < end; ++index) model_[index] = (done ? "" : versions(index)) + fill;
  }
  void write_some() {
    const BlockIndex first = (1 + random_() % 4) * kLeaf - 1 - random_() % 2, count = 1 + random_() % 3;
    const char fill = static_cast<char>('a' + random_() % 26);
    note(first, first + count, fill, put(id_, first * kBlock, std::string(count * kBlock, fill)).has_value());
  }
  void zero_some() {
    const BlockIndex first = random_() % kBlocks, end = std::min(first + 1 + random_() % (2 * kLeaf), kBlocks - 1);
    if (first < end) note(first, end, '0', layer(id_)->zero(first * kBlock, (end - first) * kBlock, {}).has_value());
  }

  void fill_some() {
    const BlockIndex first = (1 + random_() % 10) * kLeaf - 1 - random_() % 2;
    for (BlockIndex index = first; index < first + 3; ++index) static_cast<void>(layer(id_)->fill(index, 1 + random_() % 3));
  }
  void cut_off_some() {
    const BlockIndex end = kBlocks - random_() % (2 * kLeaf);
    note(end, kBlocks, '0', layer(id_)->resize(end * kBlock, {}).has_value());
    static_cast<void>(layer(id_)->resize(kBlocks * kBlock, {}));
  }

  LayerId id_;
  std::map<BlockIndex, std::string> model_;  // the versions that a block may have
  std::map<BlockIndex, std::string> seen_;   // the one that it had when it was looked at
  std::mt19937_64 random_{test::number_from_environment("REKEYFS_TEST_SEED", 1)};
};

TEST_P(LayerFaultTest, LosesNothingAcknowledged) {
  for (int step = 1; step <= 600; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    switch (random_() % 20) {
      case 0:
        random_() % 2 ? zero_some() : cut_off_some();
        break;
      case 1:
        static_cast<void>(parts_->checkpointer->run());
        break;
      case 2:
      case 3:
        fill_some();
        break;
      default:
        write_some();
    }
    if (step % 100 == 0) look_and_kill();
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LayerFaultTest,
                         ::testing::Values(LayerFault{false, false, "Plain"}, LayerFault{true, false, "Encrypted"},
                                           LayerFault{true, true, "Replica"}),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace rekeyfs
