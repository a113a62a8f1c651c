// KeyDirectory: the directory of a store's master keys: aliases, states, versions, owners, grants, dates. It decides
// which keys may be used and updates their gates; MasterKeys holds the keys themselves.
//
// Thread-safe. A change is applied to a copy, recorded, and then published; `change_` serializes changes, and lookups
// never wait for them. Master keys are created, used and destroyed without a lock, and records are put in their own
// transactions. Therefore wrap(), unwrap() and all functions that change keys must not be called in a transaction;
// find(), list() and gate_of() may. Lock order: change_ -> the records' own lock -> mutex_.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/kms/key_gate.h"
#include "engine/kms/key_record.h"
#include "engine/kms/key_records.h"
#include "engine/kms/master_keys.h"

namespace rekeyfs::kms {

class KeyDirectory {
 public:
  // Reads all records. Errc::corrupt if one fails verification. `records` and `masters` must outlive the directory.
  static Result<std::unique_ptr<KeyDirectory>> open(const crypto::Key& root, KeyRecords& records, MasterKeys& masters);

  // Errc::exists if the alias is taken, Errc::invalid if it is malformed; Errc::not_permitted if the owner would have
  // more than `most` keys.
  Result<KeyInfo> create(std::string_view alias, uid_t owner, std::size_t most = SIZE_MAX) EXCLUDES(change_, mutex_);
  // Finds a key by alias or by id in hex (32 digits). Errc::no_key if there is none.
  Result<KeyInfo> find(std::string_view alias_or_id) const EXCLUDES(mutex_);
  Result<KeyInfo> find(const KeyId& id) const EXCLUDES(mutex_);
  Result<std::vector<KeyInfo>> list() const EXCLUDES(mutex_);  // ordered by alias
  std::vector<KeyInfo> pending() const EXCLUDES(mutex_);       // those with a pending deletion

  // Wraps with the newest version. Errc::no_key, Errc::key_revoked.
  Result<WrappedKey> wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) const EXCLUDES(mutex_);
  // Errc::no_key, Errc::key_revoked; Errc::corrupt if `wrapped` was not made by that key for that context.
  Result<crypto::Key> unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) const EXCLUDES(mutex_);
  // For an unknown key, a gate that stays shut.
  std::shared_ptr<const KeyGate> gate_of(const KeyId& id) const EXCLUDES(mutex_);

  // Changes of a key's state. Errc::no_key; Errc::invalid if the current state does not allow the change. The change
  // survives kill -9 when the call returns. No key changes any more once its removal has begun.
  //
  // These two shut the gate first, in memory, whatever follows. If the change cannot be recorded, the key counts as
  // disabled until the store is closed; the same call can be repeated.
  Result<KeyInfo> disable(const KeyId& id);
  Result<KeyInfo> schedule_deletion(const KeyId& id, Timestamp when);
  // Gives a pending deletion another time. Errc::invalid if none is pending.
  Result<KeyInfo> move_deletion(const KeyId& id, Timestamp when);
  // That first step alone.
  void shut(const KeyId& id) EXCLUDES(mutex_);
  Result<KeyInfo> enable(const KeyId& id);
  Result<KeyInfo> cancel_deletion(const KeyId& id);  // enables the key again
  // Deletes a key whose deletion is due at the time `now`. All data keys that it wrapped are lost. Errc::invalid if it
  // is not due.
  Status remove(const KeyId& id, Timestamp now) EXCLUDES(change_, mutex_);
  // Creates a new version, which wraps from now on; old versions still unwrap. Errc::key_revoked unless enabled;
  // Errc::busy if a rotation of the key is in progress.
  Result<KeyInfo> rotate(const KeyId& id);
  // The caller ensures that no data key is wrapped by a version before `oldest`.
  Status forget_versions(const KeyId& id, KeyVersion oldest);
  // The right to use the key.
  Result<KeyInfo> grant(const KeyId& id, uid_t user);
  // All rights of the user. Errc::invalid if he has none.
  Result<KeyInfo> revoke(const KeyId& id, uid_t user);
  // The right to declassify only.
  Result<KeyInfo> grant_declassification(const KeyId& id, uid_t user);
  Result<KeyInfo> revoke_declassification(const KeyId& id, uid_t user);

 private:
  using MasterKeyPtr = std::shared_ptr<const MasterKey>;
  struct Entry {
    KeyRecord record;
    std::map<KeyVersion, MasterKeyPtr> masters;  // all versions while the key is enabled, else empty
    std::shared_ptr<KeyGate> gate = std::make_shared<KeyGate>();
    bool is_going = false;  // its removal has begun; a part of it may be gone
  };
  struct Usable {
    std::string alias;
    KeyVersion version = 0;
    MasterKeyPtr master;  // null for a version that no longer exists
  };
  using Edit = std::function<Status(KeyRecord&)>;

  KeyDirectory(KeyRecordCodec codec, KeyRecords& records, MasterKeys& masters)
      : codec_(std::move(codec)), records_(records), masters_(masters) {}

  Status load(const KeyId& id, std::string_view record) EXCLUDES(change_, mutex_);
  // Opens the master keys of an enabled key; drops those of any other key.
  Status make_ready(Entry& entry) const;
  // As users see it: a key whose gate is shut counts as disabled.
  static KeyInfo info_of(const Entry& entry);
  // Edits a copy, puts its record, and then publishes the copy.
  Result<KeyInfo> change(const KeyId& id, const Edit& edit) EXCLUDES(change_, mutex_);
  // The same for a change that takes the key away from its users.
  Result<KeyInfo> shut_and_change(const KeyId& id, const Edit& edit) EXCLUDES(change_, mutex_);
  Result<KeyInfo> open_again(const KeyId& id, const Edit& edit) EXCLUDES(change_, mutex_);
  Result<KeyInfo> add(Entry entry, std::size_t most) EXCLUDES(change_, mutex_);
  // An entry ready to be published. Made before its record is put, so that publishing allocates no memory.
  struct Prepared {
    std::map<KeyId, Entry> entry;
    std::map<std::string, KeyId, std::less<>> alias;
  };
  static Prepared prepare(Entry entry);
  void publish(Prepared prepared) noexcept REQUIRES(change_) EXCLUDES(mutex_);
  Result<Entry> copy_of(const KeyId& id) const EXCLUDES(mutex_);
  // nullopt: the newest version.
  Result<Usable> usable(const KeyId& id, std::optional<KeyVersion> version) const EXCLUDES(mutex_);
  // Whether a key of that name and owner may be added.
  Status may_add(std::string_view alias, uid_t owner, std::size_t most) const EXCLUDES(mutex_);
  bool is_taken(std::string_view alias) const EXCLUDES(mutex_);
  // Marks the key, so that it changes no more.
  Result<Entry> begin_removal(const KeyId& id, Timestamp now) EXCLUDES(change_, mutex_);
  const Entry* entry_of(std::string_view alias_or_id) const REQUIRES_SHARED(mutex_);
  Status destroy(const KeyRecord& record, KeyVersion before);

  const KeyRecordCodec codec_;
  KeyRecords& records_;
  MasterKeys& masters_;
  Mutex change_;
  mutable SharedMutex mutex_;
  std::map<KeyId, Entry> entries_ GUARDED_BY(mutex_);
  std::map<std::string, KeyId, std::less<>> ids_ GUARDED_BY(mutex_);  // by alias
};

}  // namespace rekeyfs::kms
