// Image: the state that all open handles of one image share.
#pragma once

#include <atomic>
#include <memory>

#include "engine/base/mutex.h"
#include "engine/blocks/layer.h"
#include "engine/formats/format.h"
#include "engine/images/truncations.h"
#include "engine/quota/account.h"
#include "engine/types/observer.h"

namespace rekeyfs::images {

inline constexpr std::uint64_t kMaxSize = std::uint64_t{16} << 40;  // maximum size of an image in bytes

inline constexpr mode_t kOwnerOnly = 07700;  // mode bits an encrypted image may have: it cannot be shared

struct Image {
  explicit Image(Ino number) : ino(number) {}

  const Ino ino;
  // Held shared while the content of a layer changes, exclusively while the image's top layer is replaced.
  mutable SharedMutex mutex;
  std::shared_ptr<blocks::Layer> top GUARDED_BY(mutex);
  Truncations truncations GUARDED_BY(mutex);
  // The number of content changes other than by parts of a copy.
  std::atomic<std::uint64_t> changes{0};
  std::atomic<bool> lost_sharing{false};  // the kernel's cached permissions are outdated

  // Number of handles with writes since their last FLUSH. While it is not zero the image is `creating`. See Unflushed.
  std::atomic<int> unflushed{0};
  std::atomic<int> creators{0};  // number of open handles that created the image
  // Number of handles through which the kernel may delay changes. See HeldBack.
  std::atomic<int> holding_back{0};
  quota::Membership quotas;  // what its content counts in
};

// Tells the kernel about permissions that a change removed. Called without locks.
inline void announce_permissions(Image& image, Observer& observer) {
  if (image.lost_sharing.exchange(false)) observer.permissions_changed(image.ino);
}

// The disk that fast create found in an image: its format and size. Raw: the file itself is the disk.
struct DiskInside {
  formats::Format format = formats::Format::raw;
  std::uint64_t size = 0;  // bytes
  bool is_wrapped() const { return format != formats::Format::raw; }
};

}  // namespace rekeyfs::images
