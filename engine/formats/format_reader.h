// FormatReader: one sandboxed process of QEMU's block layer (qemu-storage-daemon) that presents an image as its disk,
// from the start of the process to its end. The process holds no key: it gets the image's bytes from an ImageServer
// over one pair of sockets and serves the disk over others, which no other process can reach. For FormatReaders and
// DiskView. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/base/result.h"
#include "engine/formats/content.h"
#include "engine/formats/disk_connection.h"
#include "engine/formats/format.h"
#include "engine/formats/image_server.h"
#include "engine/formats/sandboxed_process.h"

namespace rekeyfs::formats {

// Time limits.
struct Patience {
  using Duration = std::chrono::steady_clock::duration;
  Duration turn = std::chrono::seconds(30);    // until another process has ended, if too many run
  Duration start = std::chrono::seconds(20);   // until a process has opened its image
  Duration answer = std::chrono::seconds(30);  // for one read of the disk
  // A process without reads for this long is ended, `start` after its launch at the earliest. Longer than `answer`.
  Duration idle = std::chrono::seconds(60);
  Duration first_pause = std::chrono::milliseconds(500);  // from the failure of a process to the start of the next one;
  Duration longest_pause = std::chrono::seconds(30);      // doubles with each failure up to this
};

class FormatReader {
 public:
  enum class State : std::uint8_t {
    running,
    retired,  // it begins no read any more, because another image needs its place
    ended,  // the process ended by itself or was idle for too long; another one may succeed
    hung,   // it did not answer within its time limit
  };

  static Result<std::shared_ptr<FormatReader>> start(std::shared_ptr<Content> image, Format format, const Patience& patience);
  ~FormatReader();  // waits for reads of the image in progress

  std::uint64_t size() const { return size_; }  // of the disk, in bytes
  Status read(std::uint64_t offset, ByteSpan out);  // within the size
  Result<Extent> extent_at(std::uint64_t offset, std::uint64_t length);
  State state() const EXCLUDES(mutex_);
  std::chrono::steady_clock::time_point last_used() const EXCLUDES(mutex_);
  // Whether the process takes no place any more.
  bool is_over() const EXCLUDES(mutex_);
  // Ends the process unless a read is in progress or was less than `least` ago. The first read has a second to come, so
  // that two images whose processes need the same place do not end each other's before they were of use.
  void end_if_idle_for(std::chrono::steady_clock::duration least) EXCLUDES(mutex_);
  // Ends the process after the reads in progress.
  void retire() EXCLUDES(mutex_);
  // Whether a retired reader has no read in progress by the deadline.
  bool has_retired_by(std::chrono::steady_clock::time_point deadline) EXCLUDES(mutex_);
  // Call after the end of the process. Whether all reads of the image have ended by the deadline.
  bool is_done_by(std::chrono::steady_clock::time_point deadline) { return server_->is_done_by(deadline); }

 private:
  using Clock = std::chrono::steady_clock;
  using Connection = std::unique_ptr<DiskConnection>;
  explicit FormatReader(const Patience& patience) : patience_(patience) {}
  Status launch(std::shared_ptr<Content> image, Format format);
  // Calls `use` with a connection that no other thread uses meanwhile.
  template <typename Use>
  Status with_connection(Use use);
  Result<Connection> borrow(Clock::time_point deadline) EXCLUDES(mutex_);
  void give_back(Connection connection) EXCLUDES(mutex_);
  void end(State state) EXCLUDES(mutex_);
  void stop();
  Error explain(const Error& error, std::uint64_t failures_before) const;

  const Patience patience_;
  std::uint64_t size_ = 0;
  std::unique_ptr<ImageServer> server_;
  std::unique_ptr<SandboxedProcess> process_;
  mutable Mutex mutex_;
  CondVar returned_;
  std::vector<Connection> idle_ GUARDED_BY(mutex_);
  std::size_t borrowed_ GUARDED_BY(mutex_) = 0;  // connections
  Clock::time_point last_used_ GUARDED_BY(mutex_) = Clock::now();  // without a read: when the process had started
  bool was_used_ GUARDED_BY(mutex_) = false;
  State state_ GUARDED_BY(mutex_) = State::running;
};

}  // namespace rekeyfs::formats
