// KeyGate: whether a master key may be used now.
//
// The key directory updates it. Every holder of a data key wrapped by the master key checks the gate before each block,
// so that disabling a key takes effect immediately. A gate that was shut stays shut, whatever state of the key is
// published, until it is reopened. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>

namespace rekeyfs::kms {

class KeyGate {
 public:
  bool is_open() const { return bits_.load(std::memory_order_acquire) == kEnabled; }
  // The state of the key.
  void set_enabled(bool enabled) {
    if (enabled) bits_.fetch_or(kEnabled, std::memory_order_acq_rel);
    else bits_.fetch_and(static_cast<std::uint8_t>(~kEnabled), std::memory_order_acq_rel);
  }
  void shut() { bits_.fetch_or(kShut, std::memory_order_acq_rel); }
  void reopen() { bits_.fetch_and(static_cast<std::uint8_t>(~kShut), std::memory_order_acq_rel); }

 private:
  static constexpr std::uint8_t kEnabled = 1, kShut = 2;
  std::atomic<std::uint8_t> bits_{0};
};

}  // namespace rekeyfs::kms
