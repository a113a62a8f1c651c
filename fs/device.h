// Device: the traffic between libfuse and /dev/fuse, for the things that libfuse 3.14 can neither say nor see.
//
// It asks for features in the answer to INIT: FUSE_HANDLE_KILLPRIV_V2 (the kernel then does not ask for the
// attribute security.capability before every write, and tells us when a write, truncation or opening has to take the
// set-uid and set-gid bits away) and FUSE_DIRECT_IO_ALLOW_MMAP (a kernel that has it drops cached pages before it
// writes past the page cache) and, for hot images, FUSE_PASSTHROUGH. And it reads that "take them away" mark from
// requests, because libfuse drops it.
//
// send() and receive() are called by libfuse's worker threads, which serve a request on the thread that received it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <sys/types.h>
#include <sys/uio.h>

namespace rekeyfs::fs {

class Device {
 public:
  enum class Passthrough { unwanted, wanted };
  explicit Device(Passthrough passthrough = Passthrough::unwanted)
      : wanted_(kKillPrivileges | kDirectIoAllowMmap | (passthrough == Passthrough::wanted ? kPassthrough : 0)) {}

  // As read(2). That the session has ended, in whichever way, is ENODEV: the one that libfuse takes for an end.
  ssize_t receive(int descriptor, void* buffer, std::size_t size);
  ssize_t send(int descriptor, iovec* pieces, int count);

  bool handles_privileges() const { return granted_.load(std::memory_order_relaxed) & kKillPrivileges; }
  bool direct_writes_are_coherent() const { return granted_.load(std::memory_order_relaxed) & kDirectIoAllowMmap; }
  bool passes_through() const { return granted_.load(std::memory_order_relaxed) & kPassthrough; }
  // Does the request that the calling thread is serving come from somebody who may not keep set-uid bits alive?
  static bool request_kills_privileges();

 private:
  static constexpr std::uint64_t kKillPrivileges = 1ULL << 28;     // FUSE_HANDLE_KILLPRIV_V2
  static constexpr std::uint64_t kDirectIoAllowMmap = 1ULL << 36;  // FUSE_DIRECT_IO_ALLOW_MMAP
  static constexpr std::uint64_t kPassthrough = 1ULL << 37;        // FUSE_PASSTHROUGH

  void inspect(const std::byte* request, std::size_t size);
  void note_offer(const std::byte* request, std::size_t size);
  void extend_init_reply(iovec* pieces, int count);

  const std::uint64_t wanted_;
  // INIT is the first request and is answered before the second is sent, so the two plain members below have one
  // thread at a time; the flags are read by all later on.
  std::uint64_t init_request_ = 0;  // its number while it is unanswered
  std::uint64_t offered_ = 0;
  std::atomic<bool> awaiting_init_reply_{false};
  std::atomic<std::uint64_t> granted_{0};
};

}  // namespace rekeyfs::fs
