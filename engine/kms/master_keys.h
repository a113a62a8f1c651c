// MasterKeys: where master keys are. The interface that a key service outside of the process can stand behind.
//
// A master key never leaves the service and never encrypts blocks; it wraps data keys. The service knows a key by its id
// and version, and by the handle that it gave for it, which the key directory keeps; names, states, grants and dates are
// the directory's. Every call may take seconds and may fail because the service cannot be reached, so none is made
// inside a transaction or with a lock held; MasterKeys::open() alone asks nobody. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "engine/crypto/key.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::kms {

// One version of a master key, ready to be used. What the process holds of it goes with the object.
class MasterKey {
 public:
  virtual ~MasterKey() = default;
  // `context` is authenticated, not stored.
  virtual Result<std::string> wrap(const crypto::Key& data_key, ByteView context) const = 0;
  // Errc::corrupt if it was not wrapped by this key for this context.
  virtual Result<crypto::Key> unwrap(std::string_view wrapped, ByteView context) const = 0;
};

class MasterKeys {
 public:
  virtual ~MasterKeys() = default;
  // A new random key, with each call another one. Its handle: opaque, no secret, durable with the key's record.
  virtual Result<std::string> make(const KeyId& id, KeyVersion version) = 0;
  // Errc::corrupt if the handle cannot be one.
  virtual Result<std::unique_ptr<MasterKey>> open(const KeyId& id, KeyVersion version, std::string_view handle) = 0;
  // What the key wrapped cannot be opened any more. One that is gone already is no error.
  virtual Status destroy(const KeyId& id, KeyVersion version, std::string_view handle) = 0;
};

}  // namespace rekeyfs::kms
