#include "engine/images/content.h"

#include <algorithm>

namespace rekeyfs::images {

using names::InodeRecord;

namespace {

Status check_range(std::uint64_t offset, std::uint64_t size) {
  if (offset > kMaxSize || size > kMaxSize - offset) return fail(Errc::too_large, "an image has at most 16 TiB");
  return {};
}

}  // namespace

// --- reading ---------------------------------------------------------------------------------------------------

std::shared_ptr<blocks::Layer> Content::readable(const Image& image) {
  SharedLock lock(image.mutex);
  return image.truncations.pending() ? nullptr : image.top;
}

Result<std::size_t> Content::read(Image& image, std::uint64_t offset, ByteSpan out, Boots::Part* boot) {
  const std::shared_ptr<blocks::Layer> layer = readable(image);
  if (!layer) return 0;
  RK_TRY(layer->may_use_key());
  const std::uint64_t size = layer->size();
  if (offset >= size) return 0;
  out = out.first(std::min<std::uint64_t>(out.size(), size - offset));
  const replication::Readers::Read goes_first(readers_);
  std::vector<blocks::Taken> taken;
  RK_TRY(layer->read(offset, out, swaps_.store.may_write() ? &taken : nullptr));
  copy_on_read_.offer(taken, offset, out);
  if (boot) boot->note(*layer, offset, out.size());
  return out.size();
}

Result<std::uint64_t> Content::seek(Image& image, std::uint64_t offset, Seek what) const {
  const std::shared_ptr<blocks::Layer> layer = readable(image);
  if (!layer) return fail(Errc::beyond_end);
  RK_TRY(layer->may_use_key());
  const std::uint64_t size = layer->size();
  if (offset >= size) return fail(Errc::beyond_end);
  if (what == Seek::hole) return layer->find_hole(offset);
  RK_TRY_ASSIGN(const std::uint64_t found, layer->find_data(offset));
  if (found >= size) return fail(Errc::beyond_end);
  return found;
}

// --- changing --------------------------------------------------------------------------------------------------

Status Content::write(Image& image, std::uint64_t offset, ByteView bytes) {
  RK_TRY(check_range(offset, bytes.size()));
  if (bytes.empty()) return {};
  return with_writable(image, [&](const auto& layer) -> Status {
    RK_TRY_ASSIGN(const quota::Charge charged, charge(image, *layer, offset, bytes.size()));
    return layer->write(offset, bytes, touch(image));
  });
}

// A block that is overwritten, or to which space was promised, adds nothing.
Result<quota::Charge> Content::charge(Image& image, blocks::Layer& layer, std::uint64_t offset, std::uint64_t size) {
  if (!quotas_.is_used()) return quota::Charge();
  RK_TRY_ASSIGN(std::uint64_t growth, layer.growth_by(offset, size, false));
  if (growth == 0) return quota::Charge();
  RK_TRY_ASSIGN(const blocks::LayerRecord record, swaps_.store.layers().record_of(layer.id()));
  if (record.promised) {
    RK_TRY_ASSIGN(growth, layer.growth_by(offset, size, true));
  }
  return quotas_.charge_image(image.quotas, image.ino, {growth, 0});
}

// Truncation to 0 replaces the content, whose cost is independent of its size.
Status Content::resize(Image& image, std::uint64_t size) {
  RK_TRY(check_range(size, 0));
  if (size == 0) {
    RK_TRY_ASSIGN(const bool emptied, empty(image));
    if (emptied) return {};
  }
  return with_writable(image, [&](const auto& layer) { return layer->resize(size, touch(image)); });
}

// False if there is nothing to replace, or a pending truncation is going to replace it.
Result<bool> Content::empty(Image& image) {
  const auto is_full = [&]() REQUIRES_SHARED(image.mutex) { return !image.truncations.pending() && image.top->size() > 0; };
  std::optional<kms::KeyId> key;
  {
    SharedLock lock(image.mutex);
    if (!is_full()) return false;
    key = image.top->made_as().key;
  }
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(swaps_, key));
  UniqueLock lock(image.mutex);
  if (!is_full() || image.top->made_as().key != key) return false;
  RK_TRY_ASSIGN(const InodeRecord inode, swaps_.tree.get(image.ino));
  RK_TRY(swap.replace(image, policy_behind(image, inode)));
  return true;
}

Status Content::allocate(Image& image, Allocate what, bool keep_size, std::uint64_t offset, std::uint64_t size) {
  if (size == 0) return fail(Errc::invalid, "the range is empty");
  RK_TRY(check_range(offset, size));
  return with_writable(image, [&](const auto& layer) -> Status {
    const auto touched = touch(image);
    if (what == Allocate::reserve) RK_TRY(promise(image, *layer, offset, size));
    else RK_TRY(layer->zero(offset, size, touched));
    if (what == Allocate::punch) RK_TRY(layer->release(offset, size));
    return keep_size ? Status{} : layer->grow(offset + size, touched);
  });
}

Status Content::promise(Image& image, blocks::Layer& layer, std::uint64_t offset, std::uint64_t size) {
  RK_TRY(swaps_.store.layers().note_promised(layer.id()));
  RK_TRY_ASSIGN(quota::Charge charged, charge(image, layer, offset, size));
  const Status promised = layer.promise(offset, size);
  if (!promised) charged.withdraw();
  return promised;
}

blocks::Touch Content::touch(Image& image) {
  image.changes.fetch_add(1);
  return {blocks::Touch::Kind::written, image.ino};
}

// --- which layer a change goes to ------------------------------------------------------------------------------

Status Content::with_writable(Image& image, const Change& change) {
  for (;;) {
    Obstacle obstacle;
    {
      SharedLock lock(image.mutex);
      RK_TRY_ASSIGN(obstacle, obstacle_of(image));
      if (obstacle.kind != Obstacle::Kind::truncation) RK_TRY(image.top->may_use_key());
      if (obstacle.kind == Obstacle::Kind::none) return change(image.top);
    }
    RK_TRY(remove(obstacle, image));
  }
}

Status Content::finish_truncation(Image& image, const Truncations::Ticket& ticket) {
  for (;;) {
    Obstacle obstacle;
    {
      SharedLock lock(image.mutex);
      if (!image.truncations.holds(ticket)) return {};
      RK_TRY_ASSIGN(obstacle, obstacle_of(image));
    }
    RK_TRY(remove(obstacle, image));
  }
}

Result<Content::Obstacle> Content::obstacle_of(const Image& image) const {
  Obstacle obstacle;
  if (image.truncations.pending()) {
    obstacle.kind = Obstacle::Kind::truncation;
    RK_TRY_ASSIGN(obstacle.policy, policy_of_new_content(image));
  } else if (image.top->is_shared()) {
    obstacle.kind = Obstacle::Kind::sharing;
    obstacle.policy.key = image.top->made_as().key;
  }
  return obstacle;
}

Status Content::remove(const Obstacle& obstacle, Image& image) {
  RK_TRY_ASSIGN(LayerSwap swap, LayerSwap::prepare(swaps_, obstacle.policy.key));
  {
    UniqueLock lock(image.mutex);
    RK_TRY_ASSIGN(const Obstacle now, obstacle_of(image));
    if (now.kind != obstacle.kind || now.policy.key != swap.key()) return {};
    RK_TRY(now.kind == Obstacle::Kind::truncation ? swap.replace(image, now.policy) : swap.overlay(image));
  }
  announce_permissions(image, observer_);
  return {};
}

Result<names::Policy> Content::policy_of_new_content(const Image& image) const {
  RK_TRY_ASSIGN(const InodeRecord inode, swaps_.tree.get(image.ino));
  const auto directory = swaps_.tree.get(inode.parent);
  // An image that was deleted while open may outlive its directory.
  if (!directory && directory.error().code != Errc::stale) return fail(directory.error());
  names::Policy policy = directory ? directory->policy : policy_behind(image, inode);
  if (image.truncations.makes_plain()) policy.key.reset();
  else if (!policy.key) policy.key = image.top->made_as().key;
  return policy;
}

names::Policy Content::policy_behind(const Image& image, const InodeRecord& inode) {
  names::Policy policy;
  policy.key = image.top->made_as().key;
  policy.fast_create = inode.image.disk != names::DiskState::as_stored;
  return policy;
}

}  // namespace rekeyfs::images
