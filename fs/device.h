// Device: intercepts the traffic between libfuse and /dev/fuse, for features that libfuse 3.14 does not support.
//
// It requests features in the answer to INIT: FUSE_HANDLE_KILLPRIV_V2 (the kernel then does not read the attribute
// security.capability before every write, and reports when a write, truncation or open must remove the set-uid and
// set-gid bits), FUSE_DIRECT_IO_ALLOW_MMAP (a kernel that supports it drops cached pages before it writes past the page
// cache) and, for hot images, FUSE_PASSTHROUGH. It also reads the "remove these bits" flag from requests, because
// libfuse drops it.
//
// The threads of SessionLoop call receive() and send(), and begin() before libfuse takes a request apart.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <sys/types.h>
#include <sys/uio.h>

#include "engine/base/bytes.h"

namespace rekeyfs::fs {

class Device {
 public:
  enum class Passthrough { unwanted, wanted };
  explicit Device(Passthrough passthrough = Passthrough::unwanted)
      : wanted_(kKillPrivileges | kDirectIoAllowMmap | (passthrough == Passthrough::wanted ? kPassthrough : 0)) {}

  // Like read(2). The end of the session, for whatever reason, is reported as ENODEV: the error that libfuse takes for
  // a regular end.
  ssize_t receive(int descriptor, void* buffer, std::size_t size);
  ssize_t send(int descriptor, iovec* pieces, int count);

  bool handles_privileges() const { return granted_.load(std::memory_order_relaxed) & kKillPrivileges; }
  bool direct_writes_are_coherent() const { return granted_.load(std::memory_order_relaxed) & kDirectIoAllowMmap; }
  bool passes_through() const { return granted_.load(std::memory_order_relaxed) & kPassthrough; }
  // The calling thread serves this request from now on.
  static void begin(ByteView request);
  // Whether that request must remove the set-uid and set-gid bits.
  static bool request_kills_privileges();

 private:
  static constexpr std::uint64_t kKillPrivileges = 1ULL << 28;     // FUSE_HANDLE_KILLPRIV_V2
  static constexpr std::uint64_t kDirectIoAllowMmap = 1ULL << 36;  // FUSE_DIRECT_IO_ALLOW_MMAP
  static constexpr std::uint64_t kPassthrough = 1ULL << 37;        // FUSE_PASSTHROUGH

  void note_init(ByteView request);
  void extend_init_reply(iovec* pieces, int count);

  const std::uint64_t wanted_;
  // INIT is the first request and is answered before the second one is sent, so only one thread at a time uses the two
  // plain members below. Later all threads read the flags.
  std::uint64_t init_request_ = 0;  // request number, until it is answered
  std::uint64_t offered_ = 0;
  std::atomic<bool> awaiting_init_reply_{false};
  std::atomic<std::uint64_t> granted_{0};
};

}  // namespace rekeyfs::fs
