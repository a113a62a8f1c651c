#include "engine/images/fast_create.h"

#include "engine/formats/disk_view.h"

namespace rekeyfs::images {

using names::DiskState;
using names::InodeRecord;
using names::Tree;

Result<DiskInside> FastCreate::look_inside(const std::shared_ptr<blocks::Layer>& content) {
  DiskInside inside;
  RK_TRY_ASSIGN(inside.format, formats::detect_format(*content));
  if (!inside.is_wrapped()) return inside;
  RK_TRY_ASSIGN(const formats::DiskFacts facts, formats::probe_disk(content, inside.format));
  inside.size = facts.size;
  return inside;
}

Status FastCreate::become_disk(Ino ino) {
  RK_TRY_ASSIGN(const ImageHold image, open_.open(ino));
  if (open_.is_open_elsewhere(image))
    return fail(Errc::busy, "the image is open: rekeyfs reads the disk in it after it is closed");
  RK_TRY_ASSIGN(const InodeRecord inode, swaps_.tree.get(ino));
  return become_disk(*image, inode.uid);
}

Status FastCreate::become_disk(Image& image, uid_t asker) {
  RK_TRY_ASSIGN(std::optional<blocks::BaseRef> frozen, freeze(image));
  if (!frozen) return {};
  const auto inside = look_inside(frozen->layer());
  if (inside) return become(image, std::move(*frozen), *inside, asker);
  {
    SharedLock lock(image.mutex);
    if (image.top != frozen->layer()) return {};  // written meanwhile: retried when that handle is closed
  }
  if (inside.error().code == Errc::wrong_medium) RK_TRY(stay_as_stored(image.ino, inside.error(), asker));
  return fail(inside.error());
}

// Holds the content of an image that is to become a disk, so that no lock is held while the format reader works.
Result<std::optional<blocks::BaseRef>> FastCreate::freeze(Image& image) {
  UniqueLock lock(image.mutex);  // no change is in progress
  RK_TRY_ASSIGN(const InodeRecord inode, swaps_.tree.get(image.ino));
  const bool is_wanted = inode.image.disk == DiskState::wanted && !image.truncations.pending() && image.top->size() > 0;
  return is_wanted ? std::optional<blocks::BaseRef>(image.top) : std::nullopt;
}

Status FastCreate::become(Image& image, blocks::BaseRef frozen, const DiskInside& inside, uid_t asker) {
  const std::shared_ptr<blocks::Layer> content = frozen.layer();
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(swaps_, content->made_as().key));
  {
    UniqueLock lock(image.mutex);
    if (image.top != content) return {};
    RK_TRY(inside.is_wrapped() ? swap.overlay(image, inside, asker) : record_disk_state(image.ino, DiskState::disk));
  }
  announce_permissions(image, observer_);
  if (inside.is_wrapped()) observer_.content_changed(image.ino);
  return {};
}

Status FastCreate::stay_as_stored(Ino ino, const Error& rule, uid_t asker) {
  refusals_.record(Refusals::event_of(swaps_.tree.path_of(ino), Caller{asker, 0}, rule));
  return record_disk_state(ino, DiskState::as_stored);
}

Status FastCreate::record_disk_state(Ino ino, DiskState state) {
  catalog::WriteTxn txn(swaps_.store.catalog());
  RK_TRY_ASSIGN(InodeRecord inode, Tree::get(txn, ino));
  inode.image.disk = state;
  Tree::put(txn, ino, inode);
  RK_TRY(txn.commit());
  return {};
}

}  // namespace rekeyfs::images
