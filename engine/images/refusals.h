// Refusals: the latest replications that a rule forbade, for `rekeyfs status`. Thread-safe.
#pragma once

#include <deque>
#include <vector>

#include "engine/base/log.h"
#include "engine/base/mutex.h"
#include "engine/engine.h"

namespace rekeyfs::images {

class Refusals {
 public:
  void add(Refusal refusal) {
    log::warn("refused: {} -> {}: {} (uid {})", refusal.source, refusal.path, refusal.rule, refusal.uid);
    Lock lock(mutex_);
    latest_.push_front(std::move(refusal));
    if (latest_.size() > kMost) latest_.pop_back();
  }
  std::vector<Refusal> latest() const {
    Lock lock(mutex_);
    return {latest_.begin(), latest_.end()};
  }

 private:
  static constexpr std::size_t kMost = 64;
  mutable Mutex mutex_;
  std::deque<Refusal> latest_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::images
