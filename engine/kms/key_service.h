// KeyService: the interface to a key management service.
//
// A master key never leaves the service and never encrypts blocks; it wraps data keys. The engine decides who
// may use which key (grants); the service knows names, versions and states. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "engine/base/ids.h"
#include "engine/crypto/key.h"

namespace rekeyfs::kms {

using KeyId = Uuid;
using KeyVersion = std::uint32_t;  // from 1; rotation adds one

enum class KeyState : std::uint8_t {  // numbers on disk, never reused
  enabled = 1,
  disabled = 2,
  pending_deletion = 3,
};
std::string_view name_of(KeyState state);

struct KeyInfo {
  KeyId id{};
  std::string alias;      // unique, 1 to 128 of [A-Za-z0-9._-], not starting with '-' or '.', not 32 hex digits
  KeyState state = KeyState::enabled;
  KeyVersion version = 1;  // the one that wraps new data keys
  uid_t owner = 0;
  Timestamp created = 0;
  Timestamp deletion = 0;       // when a pending deletion takes place; 0 if none
  KeyVersion oldest = 1;        // the oldest one kept, for data keys that were not wrapped anew since a rotation
  std::vector<uid_t> grantees;  // users other than the owner and root who may use it; sorted
};

// Errc::key_revoked, with the way to make it usable again, unless the key is enabled.
Status check_enabled(const KeyInfo& key);

// A data key as it is stored. The wrapping authenticates `context` (which layer), the key and its version,
// and commits to the key: no other master key opens it to anything.
struct WrappedKey {
  KeyVersion version = 0;
  std::string bytes;
};

// Whether a master key may be used now. The service keeps it up to date; whoever holds a data key that the master key
// wrapped looks at it with every block, so that disabling takes effect at once.
class KeyGate {
 public:
  bool is_open() const { return open_.load(std::memory_order_acquire); }
  void set_open(bool open) { open_.store(open, std::memory_order_release); }

 private:
  std::atomic<bool> open_{false};
};

class KeyService {
 public:
  virtual ~KeyService() = default;
  // Errc::exists if the alias is taken, Errc::invalid if it is malformed.
  virtual Result<KeyInfo> create(std::string_view alias, uid_t owner) = 0;
  // By alias or by id in hex (32 digits). Errc::no_key if there is none.
  virtual Result<KeyInfo> find(std::string_view alias_or_id) = 0;
  virtual Result<KeyInfo> find(const KeyId& id) = 0;
  virtual Result<std::vector<KeyInfo>> list() = 0;  // by alias
  // Wraps with the newest version. Errc::no_key, Errc::key_revoked.
  virtual Result<WrappedKey> wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) = 0;
  // Errc::no_key, Errc::key_revoked; Errc::corrupt if it was not wrapped by that key for that context.
  virtual Result<crypto::Key> unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) = 0;
  // Of an unknown key: one that stays shut.
  virtual std::shared_ptr<const KeyGate> gate_of(const KeyId& id) = 0;

  // The life of a key. Errc::no_key; Errc::invalid for a step that its state does not allow. All durable against
  // kill -9 when they return.
  virtual Result<KeyInfo> disable(const KeyId& id) = 0;
  virtual Result<KeyInfo> enable(const KeyId& id) = 0;
  virtual Result<KeyInfo> schedule_deletion(const KeyId& id, Timestamp when) = 0;
  virtual Result<KeyInfo> cancel_deletion(const KeyId& id) = 0;  // the key is enabled again
  // What it wrapped is lost. Only of a key whose deletion is due.
  virtual Status remove(const KeyId& id) = 0;
  // A new version wraps from now on; the old ones still unwrap. Errc::key_revoked unless enabled.
  virtual Result<KeyInfo> rotate(const KeyId& id) = 0;
  // The caller knows that nothing is wrapped with versions before `oldest` any more.
  virtual Status forget_versions(const KeyId& id, KeyVersion oldest) = 0;
  virtual Result<KeyInfo> grant(const KeyId& id, uid_t user) = 0;
  virtual Result<KeyInfo> revoke(const KeyId& id, uid_t user) = 0;
};

// Where the embedded key ring keeps its records: whole, authenticated, by id. The engine's catalog in a
// store, a map in tests.
class KeyRecords {
 public:
  virtual ~KeyRecords() = default;
  virtual Result<std::optional<std::string>> get(const KeyId& id) = 0;
  virtual Result<std::vector<std::pair<KeyId, std::string>>> all() = 0;
  virtual Status put(const KeyId& id, std::string_view record) = 0;  // durable against kill -9 when it returns
  virtual Status remove(const KeyId& id) = 0;
};

}  // namespace rekeyfs::kms
