// Rotator: gives a directory a new key and has every image in it encrypted anew, while it is read and written.
//
// An image changes its key by going on in a layer over the one it had (rekey()), so the directory's images are
// `replicating` when start() returns; the filler does the rest. What start() could not take (an image being opened to
// be replaced, one made under the old policy at that moment) a background thread takes later. The rotation is on
// record until a walk finds nothing left, so a crash only delays it. Thread-safe.
#pragma once

#include "engine/base/background.h"
#include "engine/images/layer_swap.h"
#include "engine/images/open_images.h"
#include "engine/types/caller.h"
#include "engine/types/directory_entry.h"

namespace rekeyfs::images {

class Rotator {
 public:
  // All outlive it.
  Rotator(const LayerSwap::Parts& swaps, OpenImages& open, Observer& observer)
      : swaps_(swaps), store_(swaps.store), tree_(swaps.tree), open_(open), audit_(swaps.audit), observer_(observer) {}
  Status start();  // takes up every rotation on record
  void stop() { background_.stop(); }

  // Subdirectories of the same policy are part of it. For the directory's owner and root, who need a grant for the old
  // key and the new one. How many images are encrypted anew; those with the key already do not count.
  Result<std::uint64_t> rotate(Ino directory, std::string_view alias_or_id, const Caller& caller);

 private:
  struct Rotation {  // as it is on record
    Ino directory;
    kms::KeyId key{};
    uid_t asker = 0;
  };
  Status change_policies(const Rotation& rotation, const Caller& caller);
  Status add_subdirectories(Ino directory, const names::Policy& policy, std::vector<Ino>& found) const;
  struct Walk {
    std::uint64_t taken = 0;
    std::uint64_t left = 0;  // for the next time
  };
  Result<Walk> walk(const Rotation& rotation);
  // Has the image go on under the rotation's key. False if it has that key already; Errc::busy while it is being replaced.
  Result<bool> rekey(Ino ino, const Rotation& rotation);
  Status take(const Rotation& rotation, Ino directory, const DirectoryEntry& entry, Walk& done);
  Result<std::vector<DirectoryEntry>> entries_of(Ino directory) const;
  Background::Duration step();
  // Whether any is left for the next time.
  bool go_on();
  Status finish(Ino directory);

  const LayerSwap::Parts swaps_;
  store::Store& store_;
  const names::Tree& tree_;
  OpenImages& open_;
  audit::AuditLog& audit_;
  Observer& observer_;
  Mutex mutex_;
  std::uint64_t asked_ GUARDED_BY(mutex_) = 0;  // how many rotations were
  Background::Clock::time_point next_walk_ GUARDED_BY(mutex_){};
  std::optional<std::uint64_t> finished_;  // the thread's own: asked_, when it last found nothing left
  Background background_{"rotator"};
};

}  // namespace rekeyfs::images
