// Fast create: an image becomes the disk that a VM sees in it, whatever format it is a file of.
//
// A copy is that disk at once (copy_range.cpp). What arrives by being written becomes it when it is closed, or, if it is
// not closed by who made it (qemu-img opens a file again and again), when it has been left alone for two seconds.
#include "engine/formats/disk_view.h"
#include "engine/images/images.h"
#include "engine/types/caller.h"
#include "engine/types/open_file.h"

namespace rekeyfs::images {

using names::DiskState;
using names::InodeRecord;
using names::Tree;

// The content must not change meanwhile. Errc::wrong_medium with the reason if it is no disk that can be shown.
Result<DiskInside> Images::look_inside(const std::shared_ptr<blocks::Layer>& content) {
  DiskInside inside;
  RK_TRY_ASSIGN(inside.format, formats::detect_format(*content));
  if (!inside.is_wrapped()) return inside;
  RK_TRY_ASSIGN(const formats::DiskFacts facts, formats::probe_disk(content, inside.format));
  inside.size = facts.size;
  return inside;
}

Status Images::become_disk(Ino ino) {
  RK_TRY_ASSIGN(ImagePtr opened, open_image(ino));
  const OpenFilePtr file(new OpenFile(*this, std::move(opened)));
  {
    Lock opening(opening_);
    if (file->image->opens > 1) return fail(Errc::busy, "the image is open: it becomes the disk in it when it is closed");
  }
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
  return become_disk(*file->image, inode.uid);
}

Status Images::become_disk(Image& image, uid_t asker) {
  std::optional<blocks::BaseRef> frozen;  // so that nobody has to wait for the format reader
  {
    UniqueLock lock(image.mutex);  // no change is under way
    RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(image.ino));
    if (inode.image.disk != DiskState::wanted || image.truncating || image.top->size() == 0) return {};
    frozen.emplace(image.top);
  }
  const auto inside = look_inside(frozen->layer());
  {
    UniqueLock lock(image.mutex);
    const std::shared_ptr<blocks::Layer> content = frozen->layer();
    frozen.reset();
    if (image.top != content) return {};  // written to meanwhile: its close comes later
    if (inside) RK_TRY(become(image, *inside, asker));
  }
  if (!inside && inside.error().code == Errc::wrong_medium) {
    record(refusal_event(tree_.path_of(image.ino), Caller{asker, 0}, inside.error()));
    RK_TRY(record_disk_state(image.ino, DiskState::as_stored));
  }
  if (!inside) return fail(inside.error());
  announce_permissions(image);
  if (inside->is_wrapped() && observer_) observer_->content_changed(image.ino);
  return {};
}

Status Images::become(Image& image, const DiskInside& inside, uid_t asker) {
  if (inside.is_wrapped()) return put_overlay(image, {image.top->made_as().key, inside, asker});
  return record_disk_state(image.ino, DiskState::disk);
}

Status Images::record_disk_state(Ino ino, DiskState state) {
  catalog::WriteTxn txn(store_.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
  inode.image.disk = state;
  Tree::put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::images
