// ImageServer: answers for the bytes of one image, and for nothing else, on one socket: the server side of the NBD
// protocol (fixed newstyle; https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), read-only. The peer
// is the sandboxed format reader and is not trusted: what the protocol does not allow ends the connection, and a
// request is bounded. A read that fails is told to the peer as EIO, and kept for whoever asks why. For FormatReader
// and probe_disk(). Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include "engine/base/descriptor.h"
#include "engine/base/mutex.h"
#include "engine/base/result.h"
#include "engine/formats/content.h"

namespace rekeyfs::formats {

class ImageServer {
 public:
  static constexpr std::uint32_t kMostRead = 1u << 20;  // bytes of one request

  ImageServer(std::shared_ptr<Content> image, Descriptor socket);
  ~ImageServer();  // waits for reads of the image that are under way
  ImageServer(const ImageServer&) = delete;
  ImageServer& operator=(const ImageServer&) = delete;

  Status start();
  void stop();  // answers nothing more; does not wait
  // Stops; whether by then no read of the image is under way any more, nor ever will be.
  bool is_done_by(std::chrono::steady_clock::time_point deadline) EXCLUDES(work_mutex_);
  bool was_shown() const { return shown_; }  // the peer knows how large the image is, and may have read from it
  // The latest read of the image that failed, and how many have.
  std::uint64_t failures() const { return failures_; }
  std::optional<Error> last_failure() const EXCLUDES(failure_mutex_);

 private:
  struct Request {
    std::uint16_t flags = 0, type = 0;
    std::uint64_t cookie = 0, offset = 0;
    std::uint32_t length = 0;
  };
  void serve() EXCLUDES(work_mutex_);
  bool negotiate() REQUIRES(receiving_);
  bool answer_option(std::uint32_t option, ByteView data) REQUIRES(receiving_);
  bool send_option_reply(std::uint32_t option, std::uint32_t type, ByteView data);
  std::optional<Request> next_request() EXCLUDES(receiving_);  // none when the connection has ended
  bool answer(const Request& request, ByteSpan buffer);
  std::uint32_t read(const Request& request, ByteSpan out);  // an NBD error number
  bool send_reply(const Request& request, std::uint32_t error, ByteView data) EXCLUDES(sending_);

  const std::shared_ptr<Content> image_;
  // In whole sectors, as QEMU sees files: its NBD client waits for ever for the rest of a sector that an end cuts.
  const std::uint64_t size_;
  const Descriptor socket_;
  enum class Phase : std::uint8_t { handshake, ready, ended };
  Mutex receiving_;  // one thread reads a whole request
  Phase phase_ GUARDED_BY(receiving_) = Phase::handshake;
  Mutex sending_;  // and one writes a whole reply
  mutable Mutex failure_mutex_;
  std::optional<Error> last_failure_ GUARDED_BY(failure_mutex_);
  std::atomic<std::uint64_t> failures_ = 0;
  Mutex work_mutex_;
  CondVar worked_;
  int at_work_ GUARDED_BY(work_mutex_) = 0;  // threads
  std::atomic<bool> shown_ = false;
  std::array<std::thread, 2> threads_;  // a read of the image that waits for a disk holds up one of them only
};

}  // namespace rekeyfs::formats
