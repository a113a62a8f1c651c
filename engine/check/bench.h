// Bench: a store whose parts a check opens one after the other; nothing is written and no thread is started. Changes
// stay in memory until a repair makes a checkpoint. Single-threaded.
#pragma once

#include <memory>
#include <set>

#include "engine/blocks/layer_registry.h"
#include "engine/catalog/salvage.h"
#include "engine/check/findings.h"
#include "engine/io/local_storage.h"
#include "engine/io/reserved_storage.h"
#include "engine/io/store_lock.h"
#include "engine/kms/embedded_keys.h"
#include "engine/kms/key_directory.h"
#include "engine/namespace/tree.h"
#include "engine/store/catalog_key_records.h"
#include "engine/store/checkpointer.h"
#include "engine/store/health.h"
#include "engine/store/superblock.h"

namespace rekeyfs::check {

class Bench {
 public:
  // Locks and unlocks the store. open_catalog() opens the catalog.
  static Result<std::unique_ptr<Bench>> open(const std::string& directory, const Credential& credential);

  ~Bench();

  // Errc::corrupt if the catalog or the start of its journal is damaged. Forks.
  Status open_catalog();
  // Salvages the damaged catalog into a new one beside it, which open_catalog() then opens.
  Result<catalog::Salvaged> salvage_catalog();
  // Key records that fail verification are reported and left out.
  Status open_keys(Findings& findings);
  // Replaces the damaged catalog by the salvaged one, if any. Then makes the changes in memory durable with two
  // checkpoints, as closing a store does.
  Status commit();

  io::Storage& storage() { return *storage_; }
  catalog::Catalog& catalog() { return *catalog_; }
  kms::KeyDirectory& keys() { return *keys_; }
  blocks::LayerRegistry& layers() { return *layers_; }
  const names::Tree& tree() const { return *tree_; }
  const catalog::Journal::History& history() const { return history_; }
  const crypto::Key& root() const { return unlocked_.root; }
  const Uuid& id() const { return unlocked_.superblock.store_id; }
  const store::Features& features() const { return unlocked_.superblock.features; }
  const std::string& directory() const { return directory_; }

 private:
  Bench(std::string directory, io::StoreLock lock, std::unique_ptr<io::ReservedStorage> storage, store::Unlocked unlocked)
      : directory_(std::move(directory)), lock_(std::move(lock)), storage_(std::move(storage)), unlocked_(std::move(unlocked)) {}

  Status put_salvaged_in_place();

  const std::string directory_;
  std::string catalog_name_ = "catalog";
  io::StoreLock lock_;
  std::unique_ptr<io::ReservedStorage> storage_;
  store::Unlocked unlocked_;
  store::Health health_{false};
  std::unique_ptr<catalog::Catalog> catalog_;
  catalog::Journal::History history_{};
  std::unique_ptr<store::CatalogKeyRecords> key_records_;
  std::unique_ptr<kms::MasterKeys> master_keys_;
  std::unique_ptr<kms::KeyDirectory> keys_;
  std::unique_ptr<blocks::LayerRegistry> layers_;
  std::unique_ptr<names::Tree> tree_;
};

}  // namespace rekeyfs::check
