// FormatReader: one sandboxed process of QEMU's block layer (qemu-storage-daemon) that shows an image as its disk, from
// its start to its end. It holds no key: it gets the image's bytes from an ImageServer over one pair of sockets and
// gives the disk's over others, none of which anybody else can reach. For FormatReaders and DiskView. Thread-safe.
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

// How long things may take.
struct Patience {
  using Duration = std::chrono::steady_clock::duration;
  Duration start = std::chrono::seconds(20);   // until a process has opened its image
  Duration answer = std::chrono::seconds(30);  // one read of the disk
  // A process that nobody reads through is ended, after `start` at the earliest; longer than `answer`.
  Duration idle = std::chrono::seconds(60);
  Duration first_pause = std::chrono::milliseconds(500);  // after a process failed, until another is started;
  Duration longest_pause = std::chrono::seconds(30);      // twice as long each time
};

class FormatReader {
 public:
  enum class State : std::uint8_t {
    running,
    ended,  // the process is gone, by itself or because nobody read for long: another one may do better
    hung,   // it did not answer in time
  };

  static Result<std::shared_ptr<FormatReader>> start(std::shared_ptr<Content> image, Format format, const Patience& patience);
  ~FormatReader();  // waits for reads of the image that are under way

  std::uint64_t size() const { return size_; }  // bytes of the disk
  Status read(std::uint64_t offset, ByteSpan out);  // within the size
  Result<Extent> extent_at(std::uint64_t offset, std::uint64_t length);
  State state() const EXCLUDES(mutex_);
  std::chrono::steady_clock::time_point last_used() const EXCLUDES(mutex_);
  // Unless a read is under way, or was less than that ago.
  void end_if_idle_for(std::chrono::steady_clock::duration least) EXCLUDES(mutex_);
  // After its end: whether by then no read of the image is under way any more.
  bool is_done_by(std::chrono::steady_clock::time_point deadline) { return server_->is_done_by(deadline); }

 private:
  using Clock = std::chrono::steady_clock;
  using Connection = std::unique_ptr<DiskConnection>;
  explicit FormatReader(const Patience& patience) : patience_(patience) {}
  Status launch(std::shared_ptr<Content> image, Format format);
  // Calls `use` with a connection of its own.
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
  Clock::time_point last_used_ GUARDED_BY(mutex_) = Clock::now();
  State state_ GUARDED_BY(mutex_) = State::running;
};

}  // namespace rekeyfs::formats
