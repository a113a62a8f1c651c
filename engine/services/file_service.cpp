#include "engine/services/file_service.h"

#include "engine/types/attributes.h"

namespace rekeyfs::services {

using names::InodeRecord;

Result<Files::Created> FileService::create(Ino parent, std::string_view name, mode_t mode, int, const Caller& caller) {
  RK_TRY(store_.may_add());
  RK_TRY_ASSIGN(OpenFilePtr file, images_.create(parent, name, mode, caller));
  RK_TRY_ASSIGN(const Attributes attributes, names_.getattr(file->image->ino));
  return Created{attributes, std::move(file)};
}

Result<std::optional<BootReads>> FileService::boot_reads(Ino image) {
  RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
  if (!found) return std::optional<BootReads>{};
  BootReads reads;
  reads.recorded = found->profile.recorded;
  reads.bytes = found->profile.bytes();
  for (const boot::Run& run : found->profile.runs)
    reads.ranges.push_back({run.first * boot::BootProfile::kUnit, run.count * boot::BootProfile::kUnit});
  return std::optional(std::move(reads));
}

Status FileService::clear_boot_profile(Ino image, const Caller& caller) {
  RK_TRY(store_.may_change());
  RK_TRY_ASSIGN(const auto found, boot_profile_of(image));
  if (!found) return fail(Errc::no_attribute, "the image has no boot profile: its first boot is still to come");
  RK_TRY_ASSIGN(const blocks::LayerRecord layer, store_.layers().record_of(found->layer));
  const Ino holder = layer.owner ? layer.owner : image;
  RK_TRY_ASSIGN(const InodeRecord held, tree_.get(holder));
  if (caller.uid != 0 && caller.uid != held.uid)
    return fail(Errc::not_permitted, "the boot profile is that of " + tree_.path_of(holder) + ": only its owner or root clears it");
  return profiles_.erase(found->layer);
}

Result<std::optional<boot::BootProfiles::Found>> FileService::boot_profile_of(Ino image) {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(image));
  if (inode.kind != NodeKind::image) return fail(Errc::invalid, tree_.path_of(image) + " is no image: only images have a boot profile");
  return profiles_.find(inode.image.layer);
}

}  // namespace rekeyfs::services
