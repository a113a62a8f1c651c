#include "engine/check/bench.h"

#include "engine/base/exceptions.h"
#include "engine/store/recovery.h"
#include "engine/store/store.h"

namespace rekeyfs::check {
namespace {

constexpr std::string_view kCatalog = "catalog", kSalvagedCatalog = "catalog.new";

Status remove_catalog(io::Storage& storage) {
  for (const char* name : {"/data.mdb", "/lock.mdb"}) RK_TRY(storage.remove(std::string(kSalvagedCatalog) + name));
  return storage.remove_directory(kSalvagedCatalog);
}

// The record of one key, to verify it alone.
class OneKey final : public kms::KeyRecords {
 public:
  OneKey(const kms::KeyId& id, std::string record) : id_(id), record_(std::move(record)) {}
  Result<std::vector<std::pair<kms::KeyId, std::string>>> all() override {
    return std::vector<std::pair<kms::KeyId, std::string>>{{id_, record_}};
  }
  Status put(const kms::KeyId&, std::string_view) override { return fail(Errc::not_supported); }
  Status remove(const kms::KeyId&) override { return fail(Errc::not_supported); }

 private:
  const kms::KeyId id_;
  const std::string record_;
};

}  // namespace

Result<std::unique_ptr<Bench>> Bench::open(const std::string& directory, const Credential& credential) {
  RK_TRY_ASSIGN(std::unique_ptr<io::Storage> storage, io::LocalStorage::open(directory, io::ReadErrors::tried_again));
  RK_TRY_ASSIGN(store::Unlocked unlocked, store::open_superblock(*storage, credential));
  RK_TRY_ASSIGN(io::StoreLock lock, io::StoreLock::acquire(directory));
  std::unique_ptr<io::ReservedStorage> reserved = store::files_of_store(std::move(storage));
  RK_TRY(reserved->adopt());
  return std::unique_ptr<Bench>(new Bench(directory, std::move(lock), std::move(reserved), std::move(unlocked)));
}

Bench::~Bench() {
  layers_.reset();
  keys_.reset();
  tree_.reset();
  catalog_.reset();
  // If memory is short, the next repair removes it.
  if (catalog_name_ != kCatalog) static_cast<void>(caught([&] { return remove_catalog(*storage_); }));
}

Result<catalog::Salvaged> Bench::salvage_catalog() {
  RK_TRY_ASSIGN(catalog::Salvaged salvaged, catalog::salvage(*storage_, std::string(kCatalog) + "/data.mdb", root(), id()));
  RK_TRY(remove_catalog(*storage_));
  RK_TRY(storage_->make_directory(kSalvagedCatalog));
  catalog_name_ = kSalvagedCatalog;
  RK_TRY(catalog::rebuild(directory_ + "/" + catalog_name_, salvaged, root(), id()));
  return salvaged;
}

Status Bench::put_salvaged_in_place() {
  if (catalog_name_ == kCatalog) return {};
  RK_TRY(storage_->sync_directory(kSalvagedCatalog));
  RK_TRY(storage_->rename(std::string(kSalvagedCatalog) + "/data.mdb", std::string(kCatalog) + "/data.mdb"));
  return storage_->sync_directory(kCatalog);
}

Status Bench::open_catalog() {
  RK_TRY_ASSIGN(catalog_, catalog::Catalog::open(*storage_, directory_ + "/" + catalog_name_, root(), id()));
  history_ = catalog_->take_history();
  RK_TRY_ASSIGN(names::Tree tree, names::Tree::create(*catalog_, root(), id()));
  tree_ = std::make_unique<names::Tree>(std::move(tree));
  return {};
}

Status Bench::open_keys(Findings& findings) {
  RK_TRY(store::replay_keys(*catalog_, history_));
  key_records_ = std::make_unique<store::CatalogKeyRecords>(*catalog_);
  RK_TRY_ASSIGN(master_keys_, kms::EmbeddedKeys::create(root()));
  RK_TRY_ASSIGN(const auto all, key_records_->all());
  std::set<std::string> aliases;
  for (const auto& [id, bytes] : all) {
    OneKey one(id, bytes);
    const auto directory = kms::KeyDirectory::open(root(), one, *master_keys_);
    if (!directory && directory.error().code != Errc::corrupt) return fail(directory.error());
    if (directory) {
      RK_TRY_ASSIGN(const kms::KeyInfo info, (*directory)->find(id));
      if (aliases.insert(info.alias).second) continue;
    }
    findings.add_record("key " + to_hex(id), directory ? "another key has the same alias" : directory.error().message,
                        "the key is dropped; its images cannot be read until the key is restored from a backup");
    catalog::Op drop;
    drop.kind = catalog::Op::Kind::erase;
    drop.key = catalog::make_key(catalog::Table::master_key, ByteView(id));
    catalog_->recover_op(drop);
  }
  findings.report.keys = aliases.size();
  RK_TRY_ASSIGN(keys_, kms::KeyDirectory::open(root(), *key_records_, *master_keys_));
  RK_TRY_ASSIGN(layers_, blocks::LayerRegistry::create(*storage_, *catalog_, *keys_, root(), id()));
  return {};
}

Status Bench::commit() {
  if (!history_.records.empty()) RK_TRY(storage_->sync_all());
  RK_TRY(catalog_->make_writable());
  RK_TRY(put_salvaged_in_place());  // the catalog stays open: LMDB has opened the file, not the path
  RK_TRY(catalog_->start(history_.next_segment));
  store::Checkpointer checkpointer(*storage_, *catalog_, *layers_, health_);
  RK_TRY(checkpointer.run());
  RK_TRY(checkpointer.run());
  history_ = {};
  return {};
}

}  // namespace rekeyfs::check
