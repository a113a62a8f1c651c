// Epochs: the random salt of each mount of the store; the mount's keys are derived from it.
//
// A salt is durable in the catalog before anything is encrypted under it. A counter nonce is therefore never used twice
// with the same key, even if an old copy of the store is restored. Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <memory>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/crypto/aead.h"

namespace rekeyfs::catalog {

using Salt = crypto::Digest;

// Limits of the fields of a block entry (rekeyfs-format(5)).
inline constexpr EpochId kLastEpoch{(1u << 24) - 1};
inline constexpr std::uint64_t kCounterEnd = std::uint64_t{1} << 40;

class Epochs {
 public:
  // `root` must outlive this object.
  explicit Epochs(const crypto::Key& root, std::uint64_t first_counter = 1) : root_(root), next_counter_(first_counter) {}

  void add(EpochId epoch, const Salt& salt);
  void set_current(EpochId epoch);
  EpochId current() const;
  EpochId newest() const;  // highest epoch added; 0 if none
  // A number that is unique in this mount: the nonce of a block under the current epoch. All layers share the counter,
  // so that reopening a layer does not reset it. Errc::read_only when the numbers are used up.
  Result<std::uint64_t> next_counter() const;
  Result<Salt> salt_of(EpochId epoch) const;  // Errc::corrupt if the epoch has no record
  // An Aead of that mount; `purpose` separates its uses. Cached.
  Result<std::shared_ptr<const crypto::Aead>> aead_of(EpochId epoch, std::string_view purpose) const;
  Result<crypto::Aead> make_aead(EpochId epoch, std::string_view purpose) const;

 private:
  const crypto::Key& root_;
  mutable std::atomic<std::uint64_t> next_counter_;
  mutable Mutex mutex_;
  EpochId current_ GUARDED_BY(mutex_);
  std::map<EpochId, Salt> salts_ GUARDED_BY(mutex_);
  // Unchanged records stay encrypted under the keys of old mounts; a few hundred entries cover most reads.
  mutable std::map<std::pair<EpochId, std::string>, std::shared_ptr<const crypto::Aead>> aeads_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::catalog
