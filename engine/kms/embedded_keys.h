// EmbeddedKeys: the key service within the process. A master key's handle is the key itself, wrapped by a key that is
// derived from the store's root key; man/rekeyfs-format.5 has its bytes. Thread-safe.
#pragma once

#include "engine/crypto/key_wrap.h"
#include "engine/kms/master_keys.h"

namespace rekeyfs::kms {

class EmbeddedKeys final : public MasterKeys {
 public:
  static Result<std::unique_ptr<EmbeddedKeys>> create(const crypto::Key& root);

  Result<std::string> make(const KeyId& id, KeyVersion version) override;
  Result<std::unique_ptr<MasterKey>> open(const KeyId& id, KeyVersion version, std::string_view handle) override;
  // The key goes with its handle, which the caller removes.
  Status destroy(const KeyId&, KeyVersion, std::string_view) override { return {}; }

 private:
  explicit EmbeddedKeys(crypto::KeyWrap wrap) : wrap_(std::move(wrap)) {}

  const crypto::KeyWrap wrap_;  // wraps master keys
};

}  // namespace rekeyfs::kms
