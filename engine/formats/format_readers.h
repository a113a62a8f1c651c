// FormatReaders: the format readers of a store, of which only so many run at a time.
//
// Each is a process with memory of its own, and the images that are read as disks may be hundreds. Where one more is
// wanted than may run, the one that has been idle longest ends; the next read of its image starts another. Where all are
// at work, one is waited for. Thread-safe.
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

  // As FormatReader::start(); Errc::io, too, if none of the others was idle within `patience.start`.
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
