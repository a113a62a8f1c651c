// FastCreate: turns an image in any disk format into the disk that a VM sees in it.
//
// A copy becomes that disk immediately (see Copies). An image that is written becomes it when its creator closes it or,
// if the creator opens it repeatedly (as qemu-img does), after two seconds without access. Thread-safe.
#pragma once

#include "engine/images/layer_swap.h"
#include "engine/images/open_images.h"
#include "engine/images/refusals.h"

namespace rekeyfs::images {

class FastCreate {
 public:
  // All arguments must outlive it.
  FastCreate(const LayerSwap::Parts& swaps, OpenImages& open, Refusals& refusals, Observer& observer)
      : swaps_(swaps), open_(open), refusals_(refusals), observer_(observer) {}

  // The caller ensures that the content does not change meanwhile. Errc::wrong_medium, with the reason, if it does not
  // hold a disk that can be presented.
  static Result<DiskInside> look_inside(const std::shared_ptr<blocks::Layer>& content);

  // Turns the image into the disk in it if fast create is still pending for it.
  Status become_disk(Image& image, uid_t asker);
  // The same for an image that is not open; Errc::busy if it is open.
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
