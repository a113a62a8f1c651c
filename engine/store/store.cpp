#include "engine/store/store.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "engine/io/file_cache.h"
#include "engine/store/leftovers.h"
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

constexpr std::array kMadeByInit{"catalog", "journal", "layers"};
constexpr std::string_view kLockName = "lock";
constexpr std::uint64_t kMaxAdded = 32u << 10;  // bytes for a new name, in the journal, the catalog and files

// Whether the directory holds the remains of an interrupted init, which creates first the lock, then the new
// superblock, then everything else.
bool is_left_by_init(const std::string& directory) {
  bool locked = false, begun = false, more = false;
  std::error_code error;
  for (const auto& entry : stdfs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    const bool is_file = stdfs::is_regular_file(entry.symlink_status(error));
    if (name == kLockName && is_file) locked = true;
    else if (name == kNewSuperblockName && is_file) begun = true;
    else if (std::find(kMadeByInit.begin(), kMadeByInit.end(), name) != kMadeByInit.end()) more = true;
    else return false;
  }
  return !error && locked && (begun || !more);
}

enum class Found { nothing, empty, interrupted };  // state of a directory that is to become a store

// Claims a directory that is missing, empty or the remains of an interrupted init.
Result<Found> claim_directory(const std::string& directory) {
  std::error_code error;
  const bool made = stdfs::create_directory(directory, error);
  if (error) return fail(error_from_errno(error.value(), "make the store directory " + directory));
  if (made) {
    stdfs::permissions(directory, stdfs::perms::owner_all, error);
    return Found::nothing;
  }
  if (stdfs::exists(directory + "/" + std::string(kSuperblockName), error))
    return fail(Errc::exists, directory + " is a rekeyfs store already: mount it, or choose another directory");
  if (stdfs::is_empty(directory, error)) return Found::empty;
  if (is_left_by_init(directory)) return Found::interrupted;
  return fail(Errc::not_empty, directory + " is not empty: choose a new or an empty directory for the store");
}

// Removes the new superblock last, so that an interruption leaves a recognizable state. The lock stays.
Status remove_leftovers(io::Storage& storage, const std::string& directory) {
  for (const char* name : kMadeByInit) {
    std::error_code error;
    stdfs::remove_all(directory + "/" + name, error);
    if (error) return fail(error_from_errno(error.value(), "remove the files of an interrupted init in " + directory));
  }
  return storage.remove(kNewSuperblockName);
}

// The superblock gets its name last: a directory without it is not a store.
Status build(io::Storage& storage, const std::string& directory, const Credential& credential,
             const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY_ASSIGN(const Unlocked unlocked, create_superblock(storage, credential));
  RK_TRY(make_directories(storage));
  RK_TRY(catalog::Catalog::create(storage, catalog_directory(directory), unlocked.root, unlocked.superblock.store_id, records));
  RK_TRY(storage.sync_all());
  return publish_superblock(storage);
}

}  // namespace

std::unique_ptr<io::ReservedStorage> files_of_store(std::unique_ptr<io::Storage> disk) {
  auto cache = std::make_unique<io::FileCache>(std::move(disk), io::FileCache::most_for_process());
  return std::make_unique<io::ReservedStorage>(std::move(cache), blocks::SlotFiles::is_one);
}

Status Store::create(const std::string& directory, const Credential& credential,
                     const std::vector<std::pair<std::string, std::string>>& records) {
  RK_TRY_ASSIGN(const Found found, claim_directory(directory));
  RK_TRY_ASSIGN(const std::unique_ptr<io::LocalStorage> storage, io::LocalStorage::open(directory));
  RK_TRY_ASSIGN(const io::StoreLock lock, io::StoreLock::acquire(directory));
  if (found == Found::interrupted) RK_TRY(remove_leftovers(*storage, directory));
  const Status built = build(*storage, directory, credential, records);
  if (!built && remove_leftovers(*storage, directory)) {
    static_cast<void>(storage->remove(kLockName));
    std::error_code ignored;
    if (found == Found::nothing) stdfs::remove(directory, ignored);
  }
  return built;
}

Result<std::unique_ptr<Store>> Store::open(const std::string& directory, const Credential& credential, bool read_only,
                                           std::unique_ptr<io::Storage> storage, StoreClock::Source clock) {
  if (!storage) {
    RK_TRY_ASSIGN(storage, io::LocalStorage::open(directory));
  }
  // First, so that a wrong secret changes nothing.
  RK_TRY_ASSIGN(Unlocked unlocked, open_superblock(*storage, credential));
  if (!read_only) RK_TRY(can_write(unlocked.superblock.features));
  RK_TRY_ASSIGN(io::StoreLock lock, io::StoreLock::acquire(directory));
  std::unique_ptr<io::ReservedStorage> reserved = files_of_store(std::move(storage));
  RK_TRY(reserved->adopt());
  std::unique_ptr<Store> store(new Store(std::move(lock), std::move(reserved), std::move(unlocked), read_only));
  RK_TRY_ASSIGN(store->catalog_, catalog::Catalog::open(store->storage(), catalog_directory(directory), store->root(), store->id()));
  RK_TRY(store->recover(std::move(clock)));
  return store;
}

Status Store::recover(StoreClock::Source clock) {
  const catalog::Journal::History history = catalog_->take_history();
  if (!history.begins)
    return fail(Errc::corrupt, history.broken + ": restore it from a backup, or run 'rekeyfs check --repair', which drops it");
  RK_TRY(replay_keys(*catalog_, history));
  key_records_ = std::make_unique<CatalogKeyRecords>(*catalog_);
  RK_TRY_ASSIGN(master_keys_, kms::EmbeddedKeys::create(root()));
  RK_TRY_ASSIGN(keys_, kms::KeyDirectory::open(root(), *key_records_, *master_keys_));
  RK_TRY_ASSIGN(layers_, blocks::LayerRegistry::create(*storage_, *catalog_, *keys_, root(), id()));
  checkpointer_ = std::make_unique<Checkpointer>(*storage_, *catalog_, *layers_, health_);
  clock_ = std::make_unique<StoreClock>(*catalog_, std::move(clock));
  if (read_only_ && history.records.empty()) return clock_->load();
  RK_TRY(can_write(unlocked_.superblock.features));  // the journal is not empty, so the store has to be changed
  RK_TRY(replay(*catalog_, *layers_, history));
  RK_TRY(make_recovery_durable(history));
  if (read_only_) catalog_->stop();
  // These layers were opened while their records were still being replayed.
  layers_->close_all();
  return clock_->load();
}

Status Store::make_recovery_durable(const catalog::Journal::History& history) {
  // If the journal is damaged, the records of these layers may still be repaired.
  if (history.broken.empty()) RK_TRY(mark_leftovers(*storage_, *catalog_));
  // Data that the journal names may be only in the page cache, left by a killed process; the checkpoint syncs only what
  // was written since.
  if (!history.records.empty()) RK_TRY(storage_->sync_all());
  RK_TRY(catalog_->start(history.next_segment));
  RK_TRY(checkpointer_->run());
  // The removal of garbage is a change, too. On a read-only mount it would otherwise not become durable and have to be
  // recovered.
  return read_only_ && catalog_->has_changes() ? checkpointer_->run() : Status{};
}

Status Store::may_change() {
  RK_TRY(may_write());
  return storage_->room_to_change();
}

Status Store::may_add() {
  RK_TRY(may_write());
  return storage_->room_to_add(kMaxAdded);
}

// A failed sync does not make the store read-only: nothing relies on the flag yet, and the next attempt writes a new
// file.
Status Store::require(Feature feature) {
  Lock lock(features_mutex_);
  const Features& features = unlocked_.superblock.features;
  if (has(features, feature)) return {};
  RK_TRY(may_change());
  if (const Status put = put_features(*storage_, unlocked_, with(features, feature)); !put)
    return fail(put.error().code, "the store cannot be given the feature \"" + std::string(name_of(feature)) + "\": " + describe(put.error()));
  log::info("the store has the feature \"{}\" from now on: versions of rekeyfs that do not know it {}", name_of(feature), effect_of(feature));
  return {};
}

Status Store::close() {
  checkpointer_->stop();
  if (read_only_) return {};
  if (const Status saved = may_write() ? clock_->save() : Status{}; !saved) log::warn("the time of the store is not saved: {}", describe(saved.error()));
  // The first checkpoint makes the changes durable and releases what they superseded; the second removes it.
  RK_TRY(checkpointer_->sync_all());
  const Status removed = checkpointer_->run();
  return removed || removed.error().code == Errc::no_space ? Status{} : removed;
}

}  // namespace rekeyfs::store
