#include "engine/images/image_status.h"

namespace rekeyfs::images {

using names::InodeRecord;

Result<Attributes> ImageStatus::getattr(Ino ino) const {
  return tree_.look_at(ino, [&](const InodeRecord& inode) { return attributes_of(ino, inode); });
}

Result<Attributes> ImageStatus::attributes_of(Ino ino, const InodeRecord& inode) const {
  Attributes out;
  out.ino = ino;
  out.kind = inode.kind;
  out.permissions = inode.permissions;
  out.links = inode.links;
  out.uid = inode.uid;
  out.gid = inode.gid;
  out.accessed = inode.accessed;
  out.modified = inode.modified;
  out.changed = inode.changed;
  if (inode.kind == NodeKind::symlink) out.size = inode.target.size();
  if (inode.kind == NodeKind::directory) out.size = 4096;
  if (inode.kind == NodeKind::image) {
    RK_TRY_ASSIGN(out.size, size_of(ino, inode));
  }
  return out;
}

Result<std::uint64_t> ImageStatus::size_of(Ino ino, const InodeRecord& inode) const {
  if (const auto image = open_.find(ino)) {
    SharedLock lock(image->mutex);
    return image->truncations.pending() ? 0 : image->top->size();
  }
  RK_TRY_ASSIGN(const auto sizes, store_.layers().sizes_of(inode.image.layer));
  return sizes.content;
}

ImageState ImageStatus::state_of(Ino ino, const InodeRecord& inode) const {
  if (inode.image.state != ImageState::normal && inode.image.state != ImageState::normal_uninitialized) {
    const auto error = filler_.error_of(ino);
    if (!error) return inode.image.state;
    return error->empty() ? ImageState::replicating : ImageState::error;
  }
  const auto image = open_.find(ino);
  return image && image->unflushed.load() > 0 ? ImageState::creating : inode.image.state;
}

bool ImageStatus::is_settled(Ino ino, const InodeRecord& inode) const {
  if (state_of(ino, inode) != ImageState::normal || initializer_.is_awaited(ino)) return false;
  const auto image = open_.find(ino);
  return !image || image->creators.load() == 0;
}

std::optional<names::Findings> ImageStatus::findings_of(Ino ino, const InodeRecord& inode) const {
  if (const auto image = open_.find(ino)) {
    SharedLock lock(image->mutex);
    if (image->truncations.pending()) return std::nullopt;  // readers see an empty image already
  }
  return inode.image.findings;
}

bool ImageStatus::may_differ(Ino ino) const {
  const auto image = open_.find(ino);
  return image && image->holding_back.load() > 0;
}

}  // namespace rekeyfs::images
