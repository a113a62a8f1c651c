#include "engine/keys/cache_drops.h"

#include <chrono>

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::keys {
namespace {

using namespace std::chrono_literals;
constexpr auto kWait = 10ms;

}  // namespace

Status CacheDrops::start() {
  return background_.start([this] { return walk_next(); });
}

Status CacheDrops::drop(const kms::KeyId& key) {
  for (const Ino image : store_.layers().forget_keys_of(key)) observer_.content_changed(image);
  const auto walk = std::make_shared<Walk>(Walk{key, std::nullopt});
  const auto deadline = Background::Clock::now() + kWait;
  Lock lock(mutex_);
  waiting_.push_back(walk);
  background_.wake();
  while (!walk->ended) {
    const auto left = deadline - Background::Clock::now();
    if (left <= left.zero()) return {};
    ended_.wait_for(mutex_, left);
  }
  return *walk->ended;
}

Background::Duration CacheDrops::walk_next() {
  std::shared_ptr<Walk> walk;
  {
    Lock lock(mutex_);
    if (waiting_.empty()) return Background::kUntilWoken;
    walk = waiting_.front();
    waiting_.pop_front();
  }
  const Status ended = caught([&]() -> Status {
    RK_TRY(uses_.visit(walk->key, [&](Ino image, bool) { observer_.content_changed(image); }, [&] { return background_.is_running(); }));
    return {};
  });
  if (!ended) log::error("not all cached pages of images of a key that was taken away are dropped: {}", describe(ended.error()));
  Lock lock(mutex_);
  walk->ended = ended;
  ended_.notify_all();
  return Background::Duration::zero();
}

}  // namespace rekeyfs::keys
