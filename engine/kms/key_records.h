// KeyRecords: the storage of the key directory's records, by key id: the catalog in a store, a map in tests.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/kms/key_info.h"

namespace rekeyfs::kms {

class KeyRecords {
 public:
  virtual ~KeyRecords() = default;
  virtual Result<std::vector<std::pair<KeyId, std::string>>> all() = 0;
  virtual Status put(const KeyId& id, std::string_view record) = 0;  // survives kill -9 when it returns
  virtual Status remove(const KeyId& id) = 0;
};

}  // namespace rekeyfs::kms
