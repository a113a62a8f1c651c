// KeyRing: the embedded key service. Master keys are random, one per version, each wrapped by a key derived
// from the store's root key; the record of a key (info and all its versions) is one entry of KeyRecords.
#pragma once

#include <map>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/crypto/aead.h"
#include "engine/kms/key_service.h"

namespace rekeyfs::kms {

class KeyRing final : public KeyService {
 public:
  // Reads all records. Errc::corrupt if one does not open. `records` must outlive the ring.
  static Result<std::unique_ptr<KeyRing>> open(const crypto::Key& root, KeyRecords& records);

  Result<KeyInfo> create(std::string_view alias, uid_t owner) override;
  Result<KeyInfo> find(std::string_view alias_or_id) override;
  Result<KeyInfo> find(const KeyId& id) override;
  Result<std::vector<KeyInfo>> list() override;
  Result<WrappedKey> wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) override;
  Result<crypto::Key> unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) override;

 private:
  struct Entry;  // KeyInfo and the unwrapped master keys by version
  KeyRing(crypto::Aead wrapper, KeyRecords& records);
};

}  // namespace rekeyfs::kms
