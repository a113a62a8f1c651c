// MasterKeys: the interface to the key service that holds the master keys; it may be outside this process.
//
// A master key never leaves the service and never encrypts blocks; it wraps data keys. The service identifies a key by
// its id, its version and the handle that the service returned for it; the key directory stores the handle and all
// names, states, grants and dates. Every call may take seconds, and fails if the service cannot be reached. Callers
// must not be in a transaction or hold a lock, except for MasterKeys::open(), which does not contact the service.
// Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "engine/crypto/key.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::kms {

// One version of a master key, ready for use. Key material in this process is wiped with the object.
class MasterKey {
 public:
  virtual ~MasterKey() = default;
  // `context` is authenticated, not stored.
  virtual Result<std::string> wrap(const crypto::Key& data_key, ByteView context) const = 0;
  // Errc::corrupt if `wrapped` was not made by this key for this context.
  virtual Result<crypto::Key> unwrap(std::string_view wrapped, ByteView context) const = 0;
};

class MasterKeys {
 public:
  virtual ~MasterKeys() = default;
  // Creates a new random key at each call. Returns its handle: opaque, not secret, stored in the key's record.
  virtual Result<std::string> make(const KeyId& id, KeyVersion version) = 0;
  // Errc::corrupt if the handle is malformed.
  virtual Result<std::unique_ptr<MasterKey>> open(const KeyId& id, KeyVersion version, std::string_view handle) = 0;
  // Destroys the key: nothing that it wrapped can be unwrapped any more. No error if it is gone already.
  virtual Status destroy(const KeyId& id, KeyVersion version, std::string_view handle) = 0;
};

}  // namespace rekeyfs::kms
