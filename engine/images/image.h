// Image: what the open handles of one image share.
#pragma once

#include <atomic>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/blocks/layer.h"
#include "engine/formats/format.h"
#include "engine/images/truncations.h"
#include "engine/types/observer.h"

namespace rekeyfs::images {

inline constexpr std::uint64_t kMaxSize = std::uint64_t{16} << 40;  // bytes of an image

inline constexpr mode_t kOwnerOnly = 07700;  // what an encrypted image may carry: it cannot be shared

struct Image {
  explicit Image(Ino number) : ino(number) {}

  const Ino ino;
  // Shared by callers that change content, exclusive for callers that change which layer it is in.
  mutable SharedMutex mutex;
  std::shared_ptr<blocks::Layer> top GUARDED_BY(mutex);
  Truncations truncations GUARDED_BY(mutex);
  // How often the content was changed by others than the pieces of a copy.
  std::atomic<std::uint64_t> changes{0};
  std::atomic<bool> lost_sharing{false};  // its permissions, as the kernel has them, are wrong

  // Handles that have written since their last FLUSH; while there are any, the image is `creating`. See Unflushed.
  std::atomic<int> unflushed{0};
  std::atomic<int> creators{0};  // handles that made it and are still open
  // Handles through which the kernel may hold changes back. See HeldBack.
  std::atomic<int> holding_back{0};
};

// Tells the kernel of permissions that a change took away. Called without locks.
inline void announce_permissions(Image& image, Observer& observer) {
  if (image.lost_sharing.exchange(false)) observer.permissions_changed(image.ino);
}

// What fast create found in an image: the disk in a file of that format, and its size; raw: the file is the disk.
struct DiskInside {
  formats::Format format = formats::Format::raw;
  std::uint64_t size = 0;  // bytes
  bool is_wrapped() const { return format != formats::Format::raw; }
};

}  // namespace rekeyfs::images
