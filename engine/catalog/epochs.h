// Epochs: the random salt of every mount of the store, from which that mount's keys are derived.
//
// A salt is durable in the catalog before anything is sealed under it, so a counter nonce never meets the same
// key twice, even when an old copy of the store is put back. Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <memory>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "engine/crypto/aead.h"

namespace rekeyfs::catalog {

using Salt = crypto::Digest;

// As wide as the fields of a block's entry are (rekeyfs-format(5)).
inline constexpr EpochId kLastEpoch{(1u << 24) - 1};
inline constexpr std::uint64_t kCounterEnd = std::uint64_t{1} << 40;

class Epochs {
 public:
  // `root` outlives this object.
  explicit Epochs(const crypto::Key& root, std::uint64_t first_counter = 1) : root_(root), next_counter_(first_counter) {}

  void add(EpochId epoch, const Salt& salt);
  void set_current(EpochId epoch);
  EpochId current() const;
  EpochId newest() const;  // of those added; 0 if none
  // A number that no other call in this mount returns: the nonce of a block under the current epoch. Shared by all
  // layers, so that a layer that is closed and opened again does not start over. Errc::read_only when all are used up.
  Result<std::uint64_t> next_counter() const;
  Result<Salt> salt_of(EpochId epoch) const;  // Errc::corrupt if no such mount is on record
  // An Aead of that mount: `purpose` tells the uses apart. Cached.
  Result<std::shared_ptr<const crypto::Aead>> aead_of(EpochId epoch, std::string_view purpose) const;
  Result<crypto::Aead> make_aead(EpochId epoch, std::string_view purpose) const;

 private:
  const crypto::Key& root_;
  mutable std::atomic<std::uint64_t> next_counter_;
  mutable Mutex mutex_;
  EpochId current_ GUARDED_BY(mutex_);
  std::map<EpochId, Salt> salts_ GUARDED_BY(mutex_);
  // Records of long-gone mounts stay sealed under their keys until they change; a few hundred cover most reads.
  mutable std::map<std::pair<EpochId, std::string>, std::shared_ptr<const crypto::Aead>> aeads_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::catalog
