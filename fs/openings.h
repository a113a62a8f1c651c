// Openings: counts how each image is open, over all its handles, and tracks what the kernel's page cache may hold of
// it.
//
// The only counts of handles by image in this layer, except those of hot images (fs/hot_images.h). Thread-safe.
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
    bool may_hide_changes = false;  // can be mapped for writing, or writes through a write-back cache
  };

  // The registration of one handle, from its opening until the kernel has released it.
  class Opening;
  // An import bypasses the page cache unless the image is open already. While it is being written, all other opens
  // bypass the cache, too. So there are never cached pages that a direct write would make outdated.
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
  Opening(Openings& owner, std::shared_ptr<Image> image, const Manner& manner);
  ~Opening();
  Opening(const Opening&) = delete;
  Opening& operator=(const Opening&) = delete;

  // Whether the handle bypasses the kernel's page cache.
  bool is_direct() const { return direct_; }
  void note_written() const;
  void note_closed() const;  // a descriptor of the handle was closed; the kernel releases the last one some time later

  // Call before a read or write of that range through the page cache.
  void note_cached(const ByteRange& range) const;
  // For a direct write: the pages to drop afterwards, because they may hold old data; nullopt if nothing was cached
  // there. The kernel drops them before it sends the write, but a reader may cache them again before the write is done.
  struct Outdated {
    ByteRange pages;
    std::uint64_t noted;  // number of note_cached() calls at that time
  };
  std::optional<Outdated> outdated_by(const ByteRange& written) const;
  void note_dropped(const Outdated& outdated) const;
  // Whether the kernel's cache may hold dirty pages of the image, with changes that have not been written to us.
  bool may_hide_changes() const;

 private:
  friend class Openings;
  Openings& owner_;
  const std::shared_ptr<Image> image_;
  const Manner manner_;
  bool direct_ = false;  // set by Openings before others see it
  mutable bool caches_ = false;  // note_cached() was called; guarded by the image's cache_mutex
};

}  // namespace rekeyfs::fs
