// ImageServer: serves the bytes of one image on one socket: a read-only server of the NBD protocol (fixed newstyle;
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md). The peer is the sandboxed format reader and is
// not trusted: a protocol violation ends the connection, and the size of a request is bounded. A failed read is
// reported to the peer as EIO; its error is kept for last_failure(). For FormatReader and probe_disk(). Thread-safe.
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
  static constexpr std::uint32_t kMaxRead = 1u << 20;  // maximum bytes of one request

  ImageServer(std::shared_ptr<Content> image, Descriptor socket);
  ~ImageServer();  // waits for reads of the image in progress
  ImageServer(const ImageServer&) = delete;
  ImageServer& operator=(const ImageServer&) = delete;

  Status start();
  void stop();  // answers no further request; does not wait
  // Stops the server. Whether all reads of the image have ended by the deadline; none starts afterwards.
  bool is_done_by(std::chrono::steady_clock::time_point deadline) EXCLUDES(work_mutex_);
  bool was_shown() const { return shown_; }  // the peer was told the size of the image and may have read from it
  // The number of failed reads of the image, and the error of the latest one.
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
  std::optional<Request> next_request() EXCLUDES(receiving_);  // nullopt when the connection has ended
  bool answer(const Request& request, ByteSpan buffer);
  std::uint32_t read(const Request& request, ByteSpan out);  // returns an NBD error number
  bool send_reply(const Request& request, std::uint32_t error, ByteView data) EXCLUDES(sending_);

  const std::shared_ptr<Content> image_;
  // Rounded up to whole sectors, like QEMU's view of files: its NBD client hangs if the last sector is incomplete.
  const std::uint64_t size_;
  const Descriptor socket_;
  enum class Phase : std::uint8_t { handshake, ready, ended };
  Mutex receiving_;  // held while one whole request is received
  Phase phase_ GUARDED_BY(receiving_) = Phase::handshake;
  Mutex sending_;  // held while one whole reply is sent
  mutable Mutex failure_mutex_;
  std::optional<Error> last_failure_ GUARDED_BY(failure_mutex_);
  std::atomic<std::uint64_t> failures_ = 0;
  Mutex work_mutex_;
  CondVar worked_;
  int at_work_ GUARDED_BY(work_mutex_) = 0;  // number of threads reading the image
  std::atomic<bool> shown_ = false;
  std::array<std::thread, 2> threads_;  // two, so that a read that waits for a disk does not block all requests
};

}  // namespace rekeyfs::formats
