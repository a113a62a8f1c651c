// EmbeddedKeys: the key service inside this process. The handle of a master key is the key itself, wrapped by a key
// derived from the store's root key; man/rekeyfs-format.5 specifies the bytes. Thread-safe.
#pragma once

#include "engine/crypto/key_wrap.h"
#include "engine/kms/master_keys.h"

namespace rekeyfs::kms {

class EmbeddedKeys final : public MasterKeys {
 public:
  static Result<std::unique_ptr<EmbeddedKeys>> create(const crypto::Key& root);

  Result<std::string> make(const KeyId& id, KeyVersion version) override;
  Result<std::unique_ptr<MasterKey>> open(const KeyId& id, KeyVersion version, std::string_view handle) override;
  // Nothing to do: the key ends with its handle, which the caller removes.
  Status destroy(const KeyId&, KeyVersion, std::string_view) override { return {}; }

 private:
  explicit EmbeddedKeys(crypto::KeyWrap wrap) : wrap_(std::move(wrap)) {}

  const crypto::KeyWrap wrap_;  // wraps master keys
};

}  // namespace rekeyfs::kms
