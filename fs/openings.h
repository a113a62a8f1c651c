// Openings: how each image is open, over all its handles, and what the kernel's page cache may hold of it meanwhile.
//
// The only counts of handles by image in this layer, but for those of hot images (fs/hot_images.h). Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "engine/base/ids.h"
#include "engine/base/mutex.h"
#include "fs/byte_range.h"

namespace rekeyfs::fs {

class Openings {
 public:
  enum class Caching { usual, import };
  struct Manner {
    Caching caching = Caching::usual;
    bool writes = false;
    bool may_hide_changes = false;  // can be mapped to write, or writes through a write-back cache
  };

  // One handle's part in it, from its opening until the kernel has released it.
  class Opening;
  // An import bypasses the page cache, unless the image is open already; and while it is written so, everybody else who
  // opens it does too. So cached pages never see a write that passes them by.
  std::unique_ptr<Opening> open(Ino ino, const Manner& manner) EXCLUDES(mutex_);

 private:
  struct Image;

  void await_release(Image& image) REQUIRES(mutex_);
  void close(const Opening& opening) EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar writer_released_;
  std::unordered_map<Ino, std::shared_ptr<Image>> images_ GUARDED_BY(mutex_);
};

class Openings::Opening {
 public:
  Opening(Openings& owner, std::shared_ptr<Image> image, const Manner& manner, bool direct);
  ~Opening();
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;

  // Whether the handle bypasses the kernel's page cache.
  bool is_direct() const { return direct_; }
  void note_written() const;
  void note_closed() const;  // a descriptor of it was closed; the kernel releases the last one some time later

  // Must precede the read or write of that range that goes through the page cache.
  void note_cached(const ByteRange& range) const;
  // After a direct write: the pages to be dropped because they may hold what was there before; none if nothing was cached
  // there. The kernel drops them before it sends such a write, but anybody may fetch them again before the write is done.
  struct Outdated {
    ByteRange pages;
    std::uint64_t noted;  // how often note_cached() had been called
  };
  std::optional<Outdated> outdated_by(const ByteRange& written) const;
  void note_dropped(const Outdated& outdated) const;
  // Whether pages of the image may be dirty in the kernel's cache: changed in a way that we have not been told of.
  bool may_hide_changes() const;

 private:
  friend class Openings;
  Openings& owner_;
  const std::shared_ptr<Image> image_;
  const Manner manner_;
  const bool direct_;
  mutable bool caches_ = false;  // guarded by the image's cache_mutex: note_cached() was called
};

}  // namespace rekeyfs::fs
