// KeyRing: the embedded key service. Master keys are random, one per version, each wrapped by a key derived
// from the store's root key; the record of a key (info and all its versions) is one entry of KeyRecords.
//
// A record carries a MAC under the root key, whatever keeps it; its bytes are specified in man/rekeyfs-format.5.
// Thread-safe, and never waits for its records while a key is being looked up: changes are made one at a time under
// `change_`, which is held while a record is put (so that two callers cannot take one alias), and only their result
// enters under `mutex_`. So wrap() and unwrap() may be called inside a transaction of what keeps the records; create()
// may not. Lock order: change_ -> the records' own -> mutex_.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "engine/base/mutex.h"
#include "engine/crypto/key_wrap.h"
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
  std::shared_ptr<const KeyGate> gate_of(const KeyId& id) override;
  Result<KeyInfo> disable(const KeyId& id) override;
  Result<KeyInfo> enable(const KeyId& id) override;
  Result<KeyInfo> schedule_deletion(const KeyId& id, Timestamp when) override;
  Result<KeyInfo> cancel_deletion(const KeyId& id) override;
  Status remove(const KeyId& id) override;
  Result<KeyInfo> rotate(const KeyId& id) override;
  Status forget_versions(const KeyId& id, KeyVersion oldest) override;
  Result<KeyInfo> grant(const KeyId& id, uid_t user) override;
  Result<KeyInfo> revoke(const KeyId& id, uid_t user) override;

 private:
  // A master key of one version: as its record has it and, as long as the key is enabled, ready to wrap data keys.
  struct MasterKey {
    std::string wrapped;
    std::optional<crypto::KeyWrap> wrap;
  };
  struct Entry {
    KeyInfo info;
    std::map<KeyVersion, std::shared_ptr<const MasterKey>> masters;
    std::shared_ptr<KeyGate> gate = std::make_shared<KeyGate>();
  };
  using Edit = std::function<Status(Entry&)>;

  KeyRing(crypto::KeyWrap master_wrap, crypto::Mac record_mac, KeyRecords& records);

  Result<std::shared_ptr<const MasterKey>> make_master(const KeyId& id, KeyVersion version) const;
  Result<std::shared_ptr<const MasterKey>> open_master(const KeyId& id, KeyVersion version, std::string wrapped) const;
  // Opens the master keys of a key that is enabled, and lets go of those of any other.
  Status make_ready(Entry& entry) const;
  std::string encode(const Entry& entry) const;
  Result<Entry> decode(const KeyId& id, std::string_view record) const;
  Status load(const KeyId& id, std::string_view record) EXCLUDES(mutex_);
  // Edits a copy, puts its record, and only then lets others see it.
  Result<KeyInfo> change(const KeyId& id, const Edit& edit) EXCLUDES(change_, mutex_);
  // An entry as others will see it, made before its record is put: publishing it then takes no memory.
  struct Prepared {
    std::map<KeyId, Entry> entry;
    std::map<std::string, KeyId, std::less<>> alias;
  };
  static Prepared prepare(Entry entry);
  void publish(Prepared prepared) noexcept REQUIRES(change_) EXCLUDES(mutex_);
  Result<Entry> copy_of(const KeyId& id) const EXCLUDES(mutex_);
  bool is_taken(std::string_view alias) const EXCLUDES(mutex_);
  const Entry* entry_of(std::string_view alias_or_id) const REQUIRES_SHARED(mutex_);
  Result<const Entry*> usable_entry(const KeyId& id) const REQUIRES_SHARED(mutex_);

  const crypto::KeyWrap master_wrap_;  // wraps master keys
  const crypto::Mac record_mac_;
  KeyRecords& records_;
  Mutex change_;
  mutable SharedMutex mutex_;
  std::map<KeyId, Entry> entries_ GUARDED_BY(mutex_);
  std::map<std::string, KeyId, std::less<>> ids_ GUARDED_BY(mutex_);  // by alias
};

}  // namespace rekeyfs::kms
