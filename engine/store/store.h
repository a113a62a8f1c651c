// Store: all parts of an open store below the name space, started and stopped in the right order.
#pragma once

#include <memory>
#include <string>

#include "engine/base/credential.h"
#include "engine/blocks/layer_registry.h"
#include "engine/io/local_storage.h"
#include "engine/io/reserved_storage.h"
#include "engine/io/store_lock.h"
#include "engine/kms/embedded_keys.h"
#include "engine/kms/key_directory.h"
#include "engine/store/catalog_key_records.h"
#include "engine/store/checkpointer.h"
#include "engine/store/health.h"
#include "engine/store/store_clock.h"
#include "engine/store/superblock.h"

namespace rekeyfs::store {

// The files of a store in `disk`, with a bounded number of descriptors and a reserve for a full disk.
std::unique_ptr<io::ReservedStorage> files_of_store(std::unique_ptr<io::Storage> disk);

class Store {
 public:
  // Creates a store with `records` (the root of the name space). On failure it leaves nothing behind.
  static Status create(const std::string& directory, const Credential& credential,
                       const std::vector<std::pair<std::string, std::string>>& records);
  // Locks, unlocks, verifies and recovers the store. When it returns, all changes in the journal are in the catalog and
  // the tables, and no thread is running. Forks (see verify.h): the caller must be single-threaded. `storage`, if not
  // null, replaces LocalStorage for the directory's files; the lock and the catalog always use the directory itself.
  // With `read_only`, a journal that is not empty is recovered as usual, with one checkpoint; with an empty journal
  // only the lock file is changed. Afterwards nothing is written, and every transaction fails.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, const Credential& credential, bool read_only,
                                             std::unique_ptr<io::Storage> storage = nullptr,
                                             StoreClock::Source clock = StoreClock::read_system);
  // Makes everything durable and stops background work; the destructor releases the lock. If the disk is too full for a
  // checkpoint, the next mount makes it.
  Status close();

  io::ReservedStorage& storage() { return *storage_; }
  catalog::Catalog& catalog() { return *catalog_; }
  kms::KeyDirectory& keys() { return *keys_; }
  blocks::LayerRegistry& layers() { return *layers_; }
  Checkpointer& checkpointer() { return *checkpointer_; }
  Health& health() { return health_; }
  StoreClock& clock() { return *clock_; }

  // Checked by callers before a change: Errc::read_only or Errc::no_space. On a full disk, changes of existing records
  // work longer than additions; deletions, which check may_write() only, always work.
  Status may_write() const { return health_.may_write(); }
  Status may_change();
  Status may_add();  // before adding a name with its records and files

  const crypto::Key& root() const { return unlocked_.root; }
  const Uuid& id() const { return unlocked_.superblock.store_id; }
  Features features() const EXCLUDES(features_mutex_) {
    Lock lock(features_mutex_);
    return unlocked_.superblock.features;
  }
  // Call before the first use of a feature: when it returns, the store has its flag, durably. No-op if it had it
  // before. Errc::read_only; Errc::no_space. Syncs files, so do not call it in a transaction.
  Status require(Feature feature) EXCLUDES(features_mutex_);

 private:
  Store(io::StoreLock lock, std::unique_ptr<io::ReservedStorage> storage, Unlocked unlocked, bool read_only)
      : lock_(std::move(lock)), storage_(std::move(storage)), unlocked_(std::move(unlocked)), read_only_(read_only), health_(read_only) {}
  Status recover(StoreClock::Source clock);
  Status make_recovery_durable(const catalog::Journal::History& history);

  io::StoreLock lock_;
  std::unique_ptr<io::ReservedStorage> storage_;
  mutable Mutex features_mutex_;  // guards the features in unlocked_; the rest of it does not change
  Unlocked unlocked_;
  const bool read_only_;
  Health health_;
  std::unique_ptr<catalog::Catalog> catalog_;
  std::unique_ptr<CatalogKeyRecords> key_records_;
  std::unique_ptr<kms::MasterKeys> master_keys_;
  std::unique_ptr<kms::KeyDirectory> keys_;
  std::unique_ptr<blocks::LayerRegistry> layers_;
  std::unique_ptr<Checkpointer> checkpointer_;
  std::unique_ptr<StoreClock> clock_;
};

}  // namespace rekeyfs::store
