// FastCreate: an image becomes the disk that a VM sees in it, whatever format it is a file of.
//
// A copy is that disk at once (Copies). An image that arrives by being written becomes it when it is closed, or, if it is
// not closed by its maker (qemu-img opens a file again and again), when it has been left alone for two seconds.
// Thread-safe.
#pragma once

#include "engine/images/layer_swap.h"
#include "engine/images/open_images.h"
#include "engine/images/refusals.h"

namespace rekeyfs::images {

class FastCreate {
 public:
  // All outlive it.
  FastCreate(const LayerSwap::Parts& swaps, OpenImages& open, Refusals& refusals, Observer& observer)
      : swaps_(swaps), open_(open), refusals_(refusals), observer_(observer) {}

  // The content must not change meanwhile. Errc::wrong_medium with the reason if it is no disk that can be shown.
  static Result<DiskInside> look_inside(const std::shared_ptr<blocks::Layer>& content);

  // The image becomes the disk in it, if fast create still wants that.
  Status become_disk(Image& image, uid_t asker);
  // The same for an image that nobody has open: Errc::busy otherwise.
  Status become_disk(Ino ino);

 private:
  Result<std::optional<blocks::BaseRef>> freeze(Image& image) EXCLUDES(image.mutex);
  Status become(Image& image, blocks::BaseRef frozen, const DiskInside& inside, uid_t asker) EXCLUDES(image.mutex);
  Status stay_as_stored(Ino ino, const Error& rule, uid_t asker);
  Status record_disk_state(Ino ino, names::DiskState state);

  const LayerSwap::Parts swaps_;
  OpenImages& open_;
  Refusals& refusals_;
  Observer& observer_;
};

}  // namespace rekeyfs::images
