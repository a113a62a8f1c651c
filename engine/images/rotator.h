// Rotator: gives a directory a new key and re-encrypts every image in it, while images are read and written.
//
// An image changes its key by continuing in a new layer over its current one (rekey()), so the directory's images are
// `replicating` when rotate() returns; the filler does the rest. A background thread retries images that rotate() could
// not handle: an image whose content is being replaced, or one created under the old policy at that moment.
//
// Image by image, the user who asks must be its owner or an operator, and have a grant for the key it has; a protected
// image is left alone. The same holds for subdirectories: what belongs to somebody else keeps its key, with all that is
// in it. What was skipped is told, and not tried again.
//
// A rotation is recorded before its first change and until a walk finds no image left, so a crash only delays it.
// Policies are changed in transactions of some hundred directories, the top directory last: while its key differs from
// the recorded one, some subdirectories may still have the old key. Thread-safe.
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
  // All arguments must outlive it.
  Rotator(const LayerSwap::Parts& swaps, OpenImages& open, Observer& observer)
      : swaps_(swaps), store_(swaps.store), tree_(swaps.tree), open_(open), audit_(swaps.audit), observer_(observer) {}
  Status start();  // resumes every recorded rotation
  void stop() { background_.stop(); }

  // What rotate() would do. Needs the same rights as rotate().
  Result<RotationPlan> plan(Ino directory, std::string_view alias_or_id, const Caller& caller);
  // Includes subdirectories with the same policy. Allowed for the directory's owner and operators; the owner needs a
  // grant for both the old and the new key. Errc::no_space, with nothing changed, if even re-encrypting the images one by one needs
  // more space than there is. Returns the plan as executed, without images that have the new key already.
  Result<RotationPlan> rotate(Ino directory, std::string_view alias_or_id, const Caller& caller);

 private:
  using Key = std::optional<kms::KeyId>;
  struct Rotation {  // as recorded
    Ino directory;
    kms::KeyId key{};
    Caller asker;
  };
  // nullopt for an invalid record.
  static std::optional<Rotation> decode(std::string_view at, std::string_view value);

  static std::string encode(const Rotation& rotation);

  // Checks the asker's rights; returns the current key of the directory.
  Result<Key> may_rotate(const Rotation& rotation) const;
  // Whether the directory, or the image, is the asker's to change.
  static bool owns(const Rotation& rotation, const names::InodeRecord& inode) {
    return rotation.asker.is_operator || rotation.asker.uid == inode.uid;
  }
  // Why an image with that key keeps it; nullopt if the rotation may take it.
  std::optional<std::string> why_kept(const Rotation& rotation, const names::InodeRecord& image, const Key& key) const;
  // Whether the rotation goes into the directory, given that it goes into the one above.
  static bool enters(const Rotation& rotation, const Key& before, const names::InodeRecord& directory);
  Result<RotationPlan> plan_of(const Rotation& rotation, const Key& before);
  Status check_room(const Rotation& rotation, const Key& before, RotationPlan& plan);
  Status put_on_record(const Rotation& rotation, const Key& before);

  // Changes the policy of the directory and of those subdirectories whose key is `before`.
  Status change_policies(const Rotation& rotation);
  Result<std::size_t> change_policies_below(const Rotation& rotation, const Key& before);
  Result<std::size_t> change_some(const std::vector<Ino>& directories, const Key& before, const kms::KeyId& key);

  // Calls `visit` for each directory of the rotation, top down, with its entries in batches.
  using Visit = std::function<Status(Ino directory, const std::vector<DirectoryEntry>& entries)>;
  Status for_each_directory(const Rotation& rotation, const Key& before, const Visit& visit) const;
  Status for_some_entries(Ino directory, const std::function<Status(const std::vector<DirectoryEntry>&)>& visit) const;

  struct Walk {
    std::uint64_t taken = 0;
    std::uint64_t left = 0;  // to be retried
    RotationPlan skipped;    // only what keeps its key
  };
  // `before`: the directory's key before the rotation.
  Result<Walk> walk(const Rotation& rotation, const Key& before);
  // Continues the image in a layer under the rotation's key. False if it has that key already; Errc::busy while its
  // content is being replaced; Errc::not_permitted if it keeps its key.
  Result<bool> rekey(Ino ino, const Rotation& rotation);
  Status take(const Rotation& rotation, Ino directory, const DirectoryEntry& entry, Walk& done);
  void skip(Ino directory, const DirectoryEntry& entry, std::string why, RotationPlan& plan) const;
  // Tells of a subdirectory with the rotation's policy that belongs to somebody else.
  void skip_foreign(const Rotation& rotation, const Key& before, Ino directory, const DirectoryEntry& entry, RotationPlan& plan) const;

  Background::Duration step();
  Result<std::vector<Rotation>> on_record() const;
  // Whether any image is left to retry.
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
  std::uint64_t asked_ GUARDED_BY(mutex_) = 0;  // number of rotate() calls
  Background::Clock::time_point next_walk_ GUARDED_BY(mutex_){};
  std::optional<std::uint64_t> finished_;  // used by the background thread only: value of asked_ when nothing was left
  Background background_{"rotator"};
};

}  // namespace rekeyfs::images
