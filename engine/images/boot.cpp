// Booting from images: what the first instance of a disk reads is recorded as its boot profile, and read ahead for the
// instances that follow.
//
// Who opens a disk that fast create made, or a clone of one, to read and to write is taken for a virtual machine:
// copiers and checksummers open it to read. Nothing here ever fails an open, a read or a close.
#include "engine/base/exceptions.h"
#include "engine/images/images.h"
#include "engine/types/open_file.h"

namespace rekeyfs::images {

using names::DiskState;
using names::InodeRecord;

void Images::begin_boot(OpenFile& file, const InodeRecord& inode) {
  if (inode.image.disk != DiskState::disk) return;
  const Status begun = caught([&]() -> Status {
    std::shared_ptr<blocks::Layer> top;
    {
      SharedLock lock(file.image->mutex);
      top = file.image->top;
    }
    Lock opening(opening_);
    Image& image = *file.image;
    file.is_machine = true;
    if (image.machines++ == 0) {
      if (auto found = profiles_.find(top->id())) {
        prefetcher_.prefetch(image.ino, top, std::move(*found));
      } else {
        RK_TRY_ASSIGN(const LayerId booted, profiles_.booted_by(top->id()));
        image.recording = std::make_shared<boot::Recording>(booted);
      }
    }
    file.recording = image.recording;
    return {};
  });
  if (!begun) log::debug("the boot of image {}: {}", inode.name, describe(begun.error()));
}

bool Images::is_running(Ino ino) {
  Lock opening(opening_);
  const auto found = open_.find(ino);
  return found != open_.end() && found->second->machines > 0;
}

std::shared_ptr<boot::Recording> Images::end_boot(OpenFile& closed) {
  Image& image = *closed.image;
  if (!closed.is_machine || --image.machines > 0) return nullptr;
  prefetcher_.forget(image.ino);
  return std::move(image.recording);
}

void Images::keep_profile(boot::Recording& recording) {
  const Status kept = caught([&]() -> Status {
    const std::optional<boot::BootProfile> profile = recording.take();
    if (!profile) return {};
    RK_TRY(store_.health().may_write());
    RK_TRY(store_.storage().room_to_add(profile->runs.size() * sizeof(boot::Run)));
    return profiles_.add(recording.booted(), *profile);
  });
  if (!kept) log::warn("a boot profile cannot be kept: {}", describe(kept.error()));
}

// A replica reads what its source reads, unless it is the disk in a file; it must know of it by itself. A clone finds its
// source's profile.
std::optional<boot::BootProfile> Images::profile_to_carry(const blocks::LayerRecord& layer, const blocks::Layer& base) const {
  if (!layer.transforms(base.made_as()) || layer.base_format != formats::Format::raw) return std::nullopt;
  auto found = profiles_.find(base.id());
  return found ? std::optional(std::move(found->profile)) : std::nullopt;
}

}  // namespace rekeyfs::images
