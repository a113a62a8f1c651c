// FormatReaders: all format readers of a store; bounds how many run at a time.
//
// Each one is a process with its own memory, and there may be hundreds of images that are read as disks. When the limit
// is reached, the reader that was idle longest is ended; the next read of its image starts a new one. When all readers
// are in use, the caller waits for one. Thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/formats/format_reader.h"

namespace rekeyfs::formats {

class FormatReaders {
 public:
  static constexpr std::size_t kMost = 32;
  explicit FormatReaders(std::size_t most = kMost) : most_(most) {}

  // Like FormatReader::start(). Also Errc::io if no other reader became idle within `patience.start`.
  Result<std::shared_ptr<FormatReader>> start(std::shared_ptr<Content> image, Format format, const Patience& patience)
      EXCLUDES(mutex_);

 private:
  bool make_room() EXCLUDES(mutex_);
  void end_idlest() REQUIRES(mutex_);

  const std::size_t most_;
  Mutex mutex_;
  std::vector<std::weak_ptr<FormatReader>> running_ GUARDED_BY(mutex_);
  std::size_t starting_ GUARDED_BY(mutex_) = 0;
};

}  // namespace rekeyfs::formats
