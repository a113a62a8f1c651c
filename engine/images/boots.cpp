#include "engine/images/boots.h"

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::images {

using boot::Recording;

std::unique_ptr<Boots::Part> Boots::begin(const Image& image, const names::InodeRecord& inode) {
  if (inode.image.disk != names::DiskState::disk) return nullptr;
  std::unique_ptr<Part> part;
  const Status begun = caught([&]() -> Status {
    std::shared_ptr<blocks::Layer> top;
    {
      SharedLock lock(image.mutex);
      top = image.top;
    }
    part = std::make_unique<Part>(image.ino);
    join(*part, top);
    return {};
  });
  if (!begun) log::debug("the boot of image {}: {}", inode.name, describe(begun.error()));
  return part;
}

void Boots::join(Part& part, const std::shared_ptr<blocks::Layer>& top) {
  Lock lock(mutex_);
  const auto [found, is_first] = running_.try_emplace(part.ino_);
  ++found->second.parts;
  part.boots_ = this;
  if (is_first) {
    auto recording = caught([&] { return prefetch_or_record(part.ino_, top); });
    if (recording) found->second.recording = std::move(*recording);
    else log::debug("the boot of image {} is not recorded: {}", part.ino_.value(), describe(recording.error()));
  }
  part.recording_ = found->second.recording;
}

Result<std::shared_ptr<Recording>> Boots::prefetch_or_record(Ino ino, const std::shared_ptr<blocks::Layer>& top) {
  if (auto found = profiles_.find(top->id())) {
    prefetcher_.prefetch(ino, top, std::move(*found));
    return std::shared_ptr<Recording>();
  }
  RK_TRY_ASSIGN(const LayerId booted, profiles_.booted_by(top->id()));
  return std::make_shared<Recording>(booted);
}

bool Boots::is_running(Ino ino) const {
  Lock lock(mutex_);
  return running_.contains(ino);
}

void Boots::end(Ino ino) noexcept {
  std::shared_ptr<Recording> recording;
  {
    Lock lock(mutex_);
    const auto found = running_.find(ino);
    if (--found->second.parts > 0) return;
    recording = std::move(found->second.recording);
    running_.erase(found);
  }
  prefetcher_.forget(ino);
  if (recording) keep_profile(*recording);
}

void Boots::Part::note(blocks::Layer& top, std::uint64_t offset, std::uint64_t size) {
  if (recording_ && recording_->note(top, offset, size)) boots_->keep_profile(*recording_);
}

void Boots::keep_profile(Recording& recording) {
  const Status kept = caught([&]() -> Status {
    const std::optional<boot::BootProfile> profile = recording.take();
    if (!profile) return {};
    RK_TRY(store_.may_write());
    RK_TRY(store_.storage().room_to_add(profile->runs.size() * sizeof(boot::Run)));
    return profiles_.add(recording.booted(), *profile);
  });
  if (!kept) log::warn("cannot store a boot profile: {}", describe(kept.error()));
}

}  // namespace rekeyfs::images
