// Store: everything an open store consists of below the name space, made and taken down in the right order.
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
#include "engine/store/superblock.h"

namespace rekeyfs::store {

// The files of a store in `disk`: with a bound on open ones, and a reserve for a full disk.
std::unique_ptr<io::ReservedStorage> files_of_store(std::unique_ptr<io::Storage> disk);

class Store {
 public:
  // Makes a store that holds `records` (the root of the name space). Leaves nothing behind when it fails.
  static Status create(const std::string& directory, const Credential& credential,
                       const std::vector<std::pair<std::string, std::string>>& records);
  // Locks, unlocks, verifies, recovers; the journal's work is in the catalog and the tables when it returns. No thread
  // runs yet. Forks (see verify.h): single-threaded callers only. `storage` is the directory's files seen otherwise than
  // through LocalStorage; the lock and the catalog are always the directory's own.
  // With `read_only`, what the journal holds is recovered as ever, by one checkpoint; without anything in the journal, no
  // file but the lock is changed. After that nothing is written, and no transaction commits.
  static Result<std::unique_ptr<Store>> open(const std::string& directory, const Credential& credential, bool read_only,
                                             std::unique_ptr<io::Storage> storage = nullptr);
  // Everything durable, background stopped; the lock goes with the object. A disk that is too full for a checkpoint leaves
  // that to the next mount.
  Status close();

  io::ReservedStorage& storage() { return *storage_; }
  catalog::Catalog& catalog() { return *catalog_; }
  kms::KeyDirectory& keys() { return *keys_; }
  blocks::LayerRegistry& layers() { return *layers_; }
  Checkpointer& checkpointer() { return *checkpointer_; }
  Health& health() { return health_; }

  // What a caller must ask before a change. Errc::read_only; Errc::no_space: on a full disk, changes of existing records
  // work for longer than additions, and deleting, which asks may_write() only, works always.
  Status may_write() const { return health_.may_write(); }
  Status may_change();
  Status may_add();  // a name, with its records and files

  const crypto::Key& root() const { return unlocked_.root; }
  const Uuid& id() const { return unlocked_.superblock.store_id; }
  const Features& features() const { return unlocked_.superblock.features; }

 private:
  Store(io::StoreLock lock, std::unique_ptr<io::ReservedStorage> storage, Unlocked unlocked, bool read_only)
      : lock_(std::move(lock)), storage_(std::move(storage)), unlocked_(std::move(unlocked)), read_only_(read_only), health_(read_only) {}
  Status recover();
  Status make_recovery_durable(const catalog::Journal::History& history);

  io::StoreLock lock_;
  std::unique_ptr<io::ReservedStorage> storage_;
  Unlocked unlocked_;
  const bool read_only_;
  Health health_;
  std::unique_ptr<catalog::Catalog> catalog_;
  std::unique_ptr<CatalogKeyRecords> key_records_;
  std::unique_ptr<kms::MasterKeys> master_keys_;
  std::unique_ptr<kms::KeyDirectory> keys_;
  std::unique_ptr<blocks::LayerRegistry> layers_;
  std::unique_ptr<Checkpointer> checkpointer_;
};

}  // namespace rekeyfs::store
