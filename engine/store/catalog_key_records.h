// CatalogKeyRecords: stores the key directory's records in the catalog. Not for use inside a WriteTxn. Thread-safe.
#pragma once

#include "engine/catalog/catalog.h"
#include "engine/kms/key_records.h"

namespace rekeyfs::store {

class CatalogKeyRecords final : public kms::KeyRecords {
 public:
  explicit CatalogKeyRecords(catalog::Catalog& catalog) : catalog_(catalog) {}

  Result<std::vector<std::pair<kms::KeyId, std::string>>> all() override {
    std::vector<std::pair<kms::KeyId, std::string>> records;
    RK_TRY(catalog_.scan(catalog::make_key(catalog::Table::master_key), "", [&](std::string_view key, std::string_view value) {
      Reader in(key.substr(1));
      in.get_into(records.emplace_back(kms::KeyId{}, std::string(value)).first);
      return true;
    }));
    return records;
  }
  Status put(const kms::KeyId& id, std::string_view record) override {
    catalog::WriteTxn txn(catalog_);
    txn.put(key_of(id), record);
    RK_TRY(txn.commit());
    return {};
  }
  Status remove(const kms::KeyId& id) override {
    catalog::WriteTxn txn(catalog_);
    txn.erase(key_of(id));
    RK_TRY(txn.commit());
    return {};
  }

 private:
  static std::string key_of(const kms::KeyId& id) { return catalog::make_key(catalog::Table::master_key, ByteView(id)); }
  catalog::Catalog& catalog_;
};

}  // namespace rekeyfs::store
