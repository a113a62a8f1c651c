// KeyRecord: the stored record of one master key, and its encoding (man/rekeyfs-format.5).
//
// A record carries a MAC under a key derived from the root key, independent of where it is stored. Thread-safe.
#pragma once

#include <map>

#include "engine/crypto/hash.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::kms {

struct KeyRecord {
  KeyInfo info;
  std::map<KeyVersion, std::string> handles;  // the key service's handle of each version
};

class KeyRecordCodec {
 public:
  static Result<KeyRecordCodec> create(const crypto::Key& root);
  std::string encode(const KeyRecord& record) const;
  // Errc::corrupt if it is damaged or belongs to another key; Errc::wrong_version.
  Result<KeyRecord> decode(const KeyId& id, std::string_view bytes) const;

 private:
  explicit KeyRecordCodec(crypto::Mac mac) : mac_(std::move(mac)) {}
  crypto::Mac mac_;
};

// Errc::corrupt with a message: what is wrong with the key's record, and what to do.
Error damaged_record(const KeyId& id, std::string_view what);

}  // namespace rekeyfs::kms
