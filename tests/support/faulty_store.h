// A fixture with the parts of an open store below the name space, assembled as in Store, on a storage with faults.
#pragma once

#include "engine/kms/key_directory.h"
#include "engine/store/catalog_key_records.h"
#include "engine/store/checkpointer.h"
#include "engine/store/leftovers.h"
#include "engine/store/recovery.h"
#include "engine/store/store.h"
#include "tests/support/storage_faults.h"
#include "tests/support/store_copies.h"
#include "tests/support/temp_directory.h"
#include "tests/support/watched_keys.h"

namespace rekeyfs::test {

class FaultyStore : public TempDirectory {
 protected:
  static constexpr std::size_t kBlock = blocks::kBlockSize;

  struct Parts {
    std::unique_ptr<io::ReservedStorage> storage;
    std::unique_ptr<catalog::Catalog> catalog;
    std::unique_ptr<store::CatalogKeyRecords> records;
    std::unique_ptr<test::WatchedKeys> masters;
    std::unique_ptr<kms::KeyDirectory> keys;
    std::unique_ptr<blocks::LayerRegistry> layers;
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

  // Does what Store::open() does.
  void open() {
    parts_.reset();
    parts_ = std::make_unique<Parts>();
    parts_->storage = store::files_of_store(std::make_unique<BorrowedStorage>(*storage_));
    ASSERT_TRUE(parts_->storage->adopt());
    io::ReservedStorage& storage = *parts_->storage;
    auto opened = catalog::Catalog::open(storage, path("catalog"), root_, id_);
    ASSERT_TRUE(opened) << error_text(opened);
    parts_->catalog = std::move(*opened);
    const catalog::Journal::History history = parts_->catalog->take_history();
    ASSERT_TRUE(store::replay_keys(*parts_->catalog, history));
    parts_->records = std::make_unique<store::CatalogKeyRecords>(*parts_->catalog);
    parts_->masters = std::make_unique<WatchedKeys>(root_);
    parts_->keys = std::move(*kms::KeyDirectory::open(root_, *parts_->records, *parts_->masters));
    parts_->layers = blocks::LayerRegistry::create(storage, *parts_->catalog, *parts_->keys, root_, id_).value();
    parts_->checkpointer = std::make_unique<store::Checkpointer>(storage, *parts_->catalog, *parts_->layers, parts_->health);
    ASSERT_TRUE(store::replay(*parts_->catalog, *parts_->layers, history));
    ASSERT_TRUE(store::mark_leftovers(storage, *parts_->catalog));
    ASSERT_TRUE(parts_->catalog->start(history.next_segment));
    ASSERT_TRUE(parts_->checkpointer->run());
    parts_->layers->close_all();
  }
  // Simulates a kill of the process.
  void kill() {
    storage_->set_hook(nullptr);
    open();
  }
  void cut_power(std::uint64_t seed, unsigned kept) {
    parts_.reset();
    storage_->power_cut(seed, kept);
    open();
  }

  // With `base`: a layer whose blocks are all in state "base".
  LayerId make_layer(LayerId base = {}, std::optional<kms::KeyId> key = {}) {
    auto made = parts_->layers->draw(key);
    EXPECT_TRUE(made);
    made->record.owner = Ino{7};
    if (base) made->place_over(base, layer(base)->size(), true);
    catalog::WriteTxn txn(*parts_->catalog);
    blocks::LayerRegistry::put(txn, *made);
    EXPECT_TRUE(txn.commit());
    return made->id;
  }
  std::shared_ptr<blocks::Layer> layer(LayerId id) {
    auto found = parts_->layers->get(id);
    EXPECT_TRUE(found) << error_text(found);
    return found ? *found : nullptr;
  }
  Status write(LayerId id, std::uint64_t block, char fill) {
    return layer(id)->write(block * kBlock, as_bytes(std::string(kBlock, fill)), {});
  }
  Status sync(LayerId id) { return parts_->checkpointer->sync_journal({layer(id)}); }
  // The character that fills a block, or a description of what is wrong with it.
  std::string block(LayerId id, std::uint64_t index) {
    std::string got(kBlock, '?');
    const Status status = layer(id)->read(index * kBlock, {reinterpret_cast<std::byte*>(got.data()), got.size()});
    if (!status) return error_text(status.error());
    if (got.find_first_not_of(got[0]) != std::string::npos) return "a mixture";
    return got[0] == '\0' ? "hole" : got.substr(0, 1);
  }

  const crypto::Key root_ = std::move(*crypto::Key::random());
  const Uuid id_{std::byte{1}};
  std::unique_ptr<FaultyStorage> storage_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace rekeyfs::test
