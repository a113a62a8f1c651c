// KeyGate: whether a master key may be used now.
//
// The key directory updates it. Every holder of a data key wrapped by the master key checks the gate before each block,
// so that disabling a key takes effect immediately. Thread-safe.
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
