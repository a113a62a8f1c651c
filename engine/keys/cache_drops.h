// CacheDrops: has the kernel drop the cached pages of the images of a key that was taken away.
//
// The pages of open images may be mapped, so they are dropped at once; these images are known without the catalog. All
// other images are found by a walk over the layers on record, whose length no caller waits for: it runs in the
// background. Until it gets to an image, the image's pages are cached, but nobody can open it. Thread-safe.
#pragma once

#include <deque>

#include "engine/base/background.h"
#include "engine/keys/key_uses.h"
#include "engine/types/observer.h"

namespace rekeyfs::keys {

class CacheDrops {
 public:
  // All arguments must outlive it.
  CacheDrops(store::Store& store, const KeyUses& uses, Observer& observer) : store_(store), uses_(uses), observer_(observer) {}

  Status start();
  void stop() { background_.stop(); }  // ends a walk; the mount ends as well

  // For a key whose gate is shut.
  void drop(const kms::KeyId& key) EXCLUDES(mutex_);

 private:
  Background::Duration walk_next() EXCLUDES(mutex_);

  store::Store& store_;
  const KeyUses& uses_;
  Observer& observer_;
  Mutex mutex_;
  std::deque<kms::KeyId> to_walk_ GUARDED_BY(mutex_);
  Background background_{"cache-drops"};
};

}  // namespace rekeyfs::keys
