// Rotator: gives a directory a new key and has every image in it encrypted anew, while it is read and written.
//
// An image changes its key by going on in a layer over the one it had (rekey()), so the directory's images are
// `replicating` when rotate() returns; the filler does the rest. What rotate() could not take (an image being opened to be
// replaced, one made under the old policy at that moment) a background thread takes later.
//
// A rotation is on record from before its first change until a walk finds nothing left, so a crash only delays it. Policies
// change some hundred to a transaction, the directory's own last: as long as it has another key than the record, those of its
// subdirectories are not all done, and its key is theirs. Thread-safe.
#pragma once

#include "engine/base/background.h"
#include "engine/images/layer_swap.h"
#include "engine/images/open_images.h"
#include "engine/types/caller.h"
#include "engine/types/directory_entry.h"
#include "engine/types/rotation_plan.h"

namespace rekeyfs::images {

class Rotator {
 public:
  // All outlive it.
  Rotator(const LayerSwap::Parts& swaps, OpenImages& open, Observer& observer)
      : swaps_(swaps), store_(swaps.store), tree_(swaps.tree), open_(open), audit_(swaps.audit), observer_(observer) {}
  Status start();  // takes up every rotation on record
  void stop() { background_.stop(); }

  // What rotate() would do. For whom that would be allowed.
  Result<RotationPlan> plan(Ino directory, std::string_view alias_or_id, const Caller& caller);
  // Subdirectories of the same policy are part of it. For the directory's owner and root, who need a grant for the old
  // key and the new one. Errc::no_space, and nothing has changed, if there is not room for it even one image after the other.
  // The plan as it was carried out: images that have the key already do not count.
  Result<RotationPlan> rotate(Ino directory, std::string_view alias_or_id, const Caller& caller);

 private:
  using Key = std::optional<kms::KeyId>;
  struct Rotation {  // as it is on record
    Ino directory;
    kms::KeyId key{};
    uid_t asker = 0;
  };
  // None of a record that does not make sense.
  static std::optional<Rotation> decode(std::string_view at, std::string_view value);

  // The key that the directory has.
  Result<Key> may_rotate(const Rotation& rotation, const Caller& caller) const;
  Result<RotationPlan> plan_of(const Rotation& rotation, const Key& before);
  Status check_room(const Rotation& rotation, const Key& before, RotationPlan& plan);
  Status put_on_record(const Rotation& rotation, const Key& before);

  // Of the directory and its subdirectories, those whose key is `before` included.
  Status change_policies(const Rotation& rotation);
  Result<std::size_t> change_policies_below(const Rotation& rotation, const Key& before);
  Result<std::size_t> change_some(const std::vector<Ino>& directories, const Key& before, const kms::KeyId& key);

  // Calls `visit` for each directory that belongs to the rotation, from the top down, with some of its entries at a time.
  using Visit = std::function<Status(Ino directory, const std::vector<DirectoryEntry>& entries)>;
  Status for_each_directory(const Rotation& rotation, const Key& before, const Visit& visit) const;
  Status for_some_entries(Ino directory, const std::function<Status(const std::vector<DirectoryEntry>&)>& visit) const;

  struct Walk {
    std::uint64_t taken = 0;
    std::uint64_t left = 0;  // for the next time
  };
  Result<Walk> walk(const Rotation& rotation);
  // Has the image go on under the rotation's key. False if it has that key already; Errc::busy while it is being replaced.
  Result<bool> rekey(Ino ino, const Rotation& rotation);
  Status take(const Rotation& rotation, Ino directory, const DirectoryEntry& entry, Walk& done);

  Background::Duration step();
  Result<std::vector<Rotation>> on_record() const;
  // Whether any is left for the next time.
  bool go_on();
  Result<bool> go_on(const Rotation& rotation);
  Status finish(const Rotation& rotation);

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
