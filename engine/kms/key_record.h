// KeyRecord: what a store keeps of one master key, and its bytes (man/rekeyfs-format.5).
//
// A record carries a MAC under a key derived from the root key, wherever it is kept. Thread-safe.
#pragma once

#include <map>

#include "engine/crypto/hash.h"
#include "engine/kms/key_info.h"

namespace rekeyfs::kms {

struct KeyRecord {
  KeyInfo info;
  std::map<KeyVersion, std::string> handles;  // by which the key service knows the key's versions
};

class KeyRecordCodec {
 public:
  static Result<KeyRecordCodec> create(const crypto::Key& root);
  std::string encode(const KeyRecord& record) const;
  // Errc::corrupt if it is damaged or another key's; Errc::wrong_version.
  Result<KeyRecord> decode(const KeyId& id, std::string_view bytes) const;

 private:
  explicit KeyRecordCodec(crypto::Mac mac) : mac_(std::move(mac)) {}
  crypto::Mac mac_;
};

// Errc::corrupt: what is wrong with a key's record, and what to do.
Error damaged_record(const KeyId& id, std::string_view what);

}  // namespace rekeyfs::kms
