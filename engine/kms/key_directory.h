// KeyDirectory: the master keys of a store by name: aliases, states, versions, owners, grants, dates. It says which keys may
// be used and keeps their gates; the keys themselves are with MasterKeys.
//
// Thread-safe. A change is made to a copy, put on record, and only then published, one at a time under `change_`; looking up
// never waits for that. Master keys are made, used and destroyed without a lock, and records are put in transactions of
// their own, so wrap(), unwrap() and what changes keys are not for inside a transaction; find(), list() and gate_of() are.
// Lock order: change_ -> the records' own -> mutex_.
#pragma once

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
  // Reads all records. Errc::corrupt if one does not open. `records` and `masters` outlive it.
  static Result<std::unique_ptr<KeyDirectory>> open(const crypto::Key& root, KeyRecords& records, MasterKeys& masters);

  // Errc::exists if the alias is taken, Errc::invalid if it is malformed.
  Result<KeyInfo> create(std::string_view alias, uid_t owner) EXCLUDES(change_, mutex_);
  // By alias or by id in hex (32 digits). Errc::no_key if there is none.
  Result<KeyInfo> find(std::string_view alias_or_id) const EXCLUDES(mutex_);
  Result<KeyInfo> find(const KeyId& id) const EXCLUDES(mutex_);
  Result<std::vector<KeyInfo>> list() const EXCLUDES(mutex_);  // by alias

  // Wraps with the newest version. Errc::no_key, Errc::key_revoked.
  Result<WrappedKey> wrap(const KeyId& id, const crypto::Key& data_key, ByteView context) const EXCLUDES(mutex_);
  // Errc::no_key, Errc::key_revoked; Errc::corrupt if it was not wrapped by that key for that context.
  Result<crypto::Key> unwrap(const KeyId& id, const WrappedKey& wrapped, ByteView context) const EXCLUDES(mutex_);
  // Of an unknown key: one that stays shut.
  std::shared_ptr<const KeyGate> gate_of(const KeyId& id) const EXCLUDES(mutex_);

  // The life of a key. Errc::no_key; Errc::invalid for a step that its state does not allow. All durable against
  // kill -9 when they return.
  Result<KeyInfo> disable(const KeyId& id);
  Result<KeyInfo> enable(const KeyId& id);
  // Neither changes a deletion that is due: the master key may be gone already.
  Result<KeyInfo> schedule_deletion(const KeyId& id, Timestamp when);
  Result<KeyInfo> cancel_deletion(const KeyId& id);  // the key is enabled again
  // What it wrapped is lost. Only of a key whose deletion is due.
  Status remove(const KeyId& id) EXCLUDES(change_, mutex_);
  // A new version wraps from now on; the old ones still unwrap. Errc::key_revoked unless enabled; Errc::busy if the key is
  // being rotated already.
  Result<KeyInfo> rotate(const KeyId& id);
  // The caller knows that nothing is wrapped with versions before `oldest` any more.
  Status forget_versions(const KeyId& id, KeyVersion oldest);
  Result<KeyInfo> grant(const KeyId& id, uid_t user);
  Result<KeyInfo> revoke(const KeyId& id, uid_t user);

 private:
  using MasterKeyPtr = std::shared_ptr<const MasterKey>;
  struct Entry {
    KeyRecord record;
    std::map<KeyVersion, MasterKeyPtr> masters;  // all versions while the key is enabled, else none
    std::shared_ptr<KeyGate> gate = std::make_shared<KeyGate>();
  };
  struct Usable {
    std::string alias;
    KeyVersion version = 0;
    MasterKeyPtr master;  // none of a version that is not kept
  };
  using Edit = std::function<Status(KeyRecord&)>;

  KeyDirectory(KeyRecordCodec codec, KeyRecords& records, MasterKeys& masters)
      : codec_(std::move(codec)), records_(records), masters_(masters) {}

  Status load(const KeyId& id, std::string_view record) EXCLUDES(change_, mutex_);
  // Opens the master keys of a key that is enabled, and lets go of those of any other.
  Status make_ready(Entry& entry) const;
  // Edits a copy, puts its record, and only then lets others see it.
  Result<KeyInfo> change(const KeyId& id, const Edit& edit) EXCLUDES(change_, mutex_);
  Result<KeyInfo> add(Entry entry) EXCLUDES(change_, mutex_);
  // An entry as others will see it, made before its record is put: publishing it then takes no memory.
  struct Prepared {
    std::map<KeyId, Entry> entry;
    std::map<std::string, KeyId, std::less<>> alias;
  };
  static Prepared prepare(Entry entry);
  void publish(Prepared prepared) noexcept REQUIRES(change_) EXCLUDES(mutex_);
  Result<Entry> copy_of(const KeyId& id) const EXCLUDES(mutex_);
  // `version`: else the newest one.
  Result<Usable> usable(const KeyId& id, std::optional<KeyVersion> version) const EXCLUDES(mutex_);
  bool is_taken(std::string_view alias) const EXCLUDES(mutex_);
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
