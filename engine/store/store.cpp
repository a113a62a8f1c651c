#include "engine/store/store.h"

#include <filesystem>

#include "engine/store/recovery.h"

namespace rekeyfs::store {
namespace {

namespace stdfs = std::filesystem;

std::string catalog_directory(const std::string& store) { return store + "/catalog"; }

Status make_directories(io::Storage& storage) {
  for (const char* name : {"catalog", "journal", "layers"}) RK_TRY(storage.make_directory(name));
  for (std::uint64_t low = 0; low < 256; ++low) RK_TRY(storage.make_directory(blocks::layer_directory(LayerId{low})));
  RK_TRY(storage.sync_directory("layers"));
  return {};
}

// A directory that is missing or empty becomes the store's; says whether it was made here.
Result<bool> claim_directory(const std::string& directory) {
  std::error_code error;
  const bool made = stdfs::create_directory(directory, error);
  if (error) return fail(error_from_errno(error.value(), "make the store directory " + directory));
  if (made) {
    stdfs::permissions(directory, stdfs::perms::owner_all, error);
    return true;
  }
  if (stdfs::exists(directory + "/" + std::string(kSuperblockName), error))
    return fail(Errc::exists, directory + " is a rekeyfs store already: mount it, or choose another directory");
  if (!stdfs::is_empty(directory, error))
    return fail(Errc::not_empty, directory + " is not empty: choose a new or an empty directory for the store");
  return false;
}

void clear(const std::string& directory, bool remove_it) {
  std::error_code ignored;
  for (const auto& entry : stdfs::directory_iterator(directory, ignored)) stdfs::remove_all(entry.path(), ignored);
  if (remove_it) stdfs::remove(directory, ignored);
}

// The superblock comes last: a directory without one is no store.
Status build(const std::string& directory, const Credential& credential,
             const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY_ASSIGN(const io::StoreLock lock, io::StoreLock::acquire(directory));
  RK_TRY_ASSIGN(const std::unique_ptr<io::LocalStorage> storage, io::LocalStorage::open(directory));
  RK_TRY(make_directories(*storage));
  RK_TRY_ASSIGN(const Unlocked unlocked, create_superblock(*storage, credential));
  RK_TRY(catalog::Catalog::create(*storage, catalog_directory(directory), unlocked.root, unlocked.superblock.store_id, records));
  return storage->sync_all();
}

}  // namespace

Status Store::create(const std::string& directory, const Credential& credential,
                     const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY_ASSIGN(const bool made, claim_directory(directory));
  const Status built = build(directory, credential, records);
  if (!built) clear(directory, made);
  return built;
}

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, const Credential& credential, bool read_only,
                                           std::unique_ptr<io::Storage> storage) {
  if (!storage) {
    RK_TRY_ASSIGN(storage, io::LocalStorage::open(directory));
  }
  RK_TRY_ASSIGN(Unlocked unlocked, open_superblock(*storage, credential));  // a wrong secret changes nothing
  RK_TRY_ASSIGN(io::StoreLock lock, io::StoreLock::acquire(directory));
  std::unique_ptr<Store> store(new Store(std::move(lock), std::move(storage), std::move(unlocked), read_only));
  RK_TRY_ASSIGN(store->catalog_, catalog::Catalog::open(store->storage(), catalog_directory(directory), store->root(), store->id()));
  RK_TRY(store->recover());
  return store;
}

Status Store::recover() {
  const catalog::Journal::History history = catalog_->take_history();
  // Keys first: the blocks of the history are verified with them.
  for (const catalog::Journal::Record& record : history.records) {
    RK_TRY_ASSIGN(const std::vector<catalog::Op> ops, catalog::decode_ops(record.payload));
    for (const catalog::Op& op : ops)
      if (!op.key.empty() && op.key[0] == static_cast<char>(catalog::Table::master_key)) catalog_->recover_op(op);
  }
  key_records_ = std::make_unique<CatalogKeyRecords>(*catalog_);
  RK_TRY_ASSIGN(keys_, kms::KeyRing::open(root(), *key_records_));
  layers_ = std::make_unique<blocks::LayerRegistry>(*storage_, *catalog_, *keys_, root(), id());
  checkpointer_ = std::make_unique<Checkpointer>(*storage_, *catalog_, *layers_, health_);
  RK_TRY(replay(*catalog_, *layers_, history));
  // What the journal speaks of may be in the page cache only, left by a process that was killed; the checkpoint makes
  // durable what was written since.
  if (!history.records.empty()) RK_TRY(storage_->sync_all());
  RK_TRY(catalog_->start(history.next_segment));
  RK_TRY(checkpointer_->run());
  // Opened while their records were still being replayed.
  layers_->close_all();
  return {};
}

Status Store::close() {
  checkpointer_->stop();
  // The first makes changes durable, which lets go of what they superseded; the second removes that.
  RK_TRY(checkpointer_->run());
  return checkpointer_->run();
}

}  // namespace rekeyfs::store
