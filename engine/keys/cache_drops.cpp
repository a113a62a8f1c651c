#include "engine/keys/cache_drops.h"

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::keys {

Status CacheDrops::start() {
  return background_.start([this] { return walk_next(); });
}

void CacheDrops::drop(const kms::KeyId& key) {
  observer_.contents_changed(store_.layers().forget_keys_of(key));
  {
    Lock lock(mutex_);
    to_walk_.push_back(key);
  }
  background_.wake();
}

Background::Duration CacheDrops::walk_next() {
  kms::KeyId key;
  {
    Lock lock(mutex_);
    if (to_walk_.empty()) return Background::kUntilWoken;
    key = to_walk_.front();
    to_walk_.pop_front();
  }
  const Status ended = caught([&]() -> Status {
    RK_TRY(uses_.visit(key, [&](Ino image, bool) { observer_.content_changed(image); }, [&] { return background_.is_running(); }));
    return {};
  });
  if (!ended) log::error("not all cached pages of images of a key that was taken away are dropped: {}", describe(ended.error()));
  return Background::Duration::zero();
}

}  // namespace rekeyfs::keys
