// KeyGate: whether a master key may be used now.
//
// The key directory keeps it up to date. Every holder of a data key that the master key wrapped looks at it before each
// block, so that disabling takes effect at once. Thread-safe.
#pragma once

#include <atomic>

namespace rekeyfs::kms {

class KeyGate {
 public:
  bool is_open() const { return open_.load(std::memory_order_acquire); }
  void set_open(bool open) { open_.store(open, std::memory_order_release); }

 private:
  std::atomic<bool> open_{false};
};

}  // namespace rekeyfs::kms
