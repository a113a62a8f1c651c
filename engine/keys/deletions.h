// Deletions: when the pending deletions of keys are due. Thread-safe.
//
// A deletion is due when its delay has passed both by the wall clock and in store time (store/store_clock.h), so a
// clock that was set forward deletes nothing early. The wall-clock time is in the key's record, the store time in a
// record of its own, which also holds the wall-clock time: if the two differ, an older rekeyfs has changed the key, and
// the delay starts anew.
#pragma once

#include "engine/namespace/tree.h"
#include "engine/store/store.h"

namespace rekeyfs::keys {

class Deletions {
 public:
  // All arguments must outlive it.
  Deletions(store::Store& store, const names::Tree& tree) : store_(store), tree_(tree) {}

  // The shortest delay that this store allows: user.rekeyfs.min_deletion_delay of its root directory.
  Result<Timestamp> minimum() const;
  // Records that the key is to be deleted after `delay`. Returns the wall-clock time for the key's record, which the
  // caller puts next.
  Result<Timestamp> schedule(const kms::KeyId& key, Timestamp delay);
  // After the deletion was cancelled or has taken place.
  Status forget(const kms::KeyId& key);
  // False for a deletion without a valid record, which adopt() gives one.
  Result<bool> is_due(const kms::KeyInfo& key) const;
  // When it takes place if the store stays mounted and nobody sets the clock.
  Result<Timestamp> earliest(const kms::KeyInfo& key) const;
  // A deletion without a valid record gets one, as if it had been scheduled now: with what is left of its delay by the
  // wall clock, but at least the minimum. True if it needed one.
  Result<bool> adopt(const kms::KeyInfo& key);
  // The wall clock was set back: the wall-clock time that is due with what is left of the delay in store time, if that
  // is earlier than the key's record says. Recorded; the caller puts the key's record next.
  Result<std::optional<Timestamp>> after_setback(const kms::KeyInfo& key);

 private:
  // The store time at which the deletion is due; nullopt without a valid record.
  Result<std::optional<Timestamp>> due(const kms::KeyInfo& key) const;
  Status put(const kms::KeyId& key, Timestamp wall, Timestamp due);

  store::Store& store_;
  const names::Tree& tree_;
};

}  // namespace rekeyfs::keys
