#include "engine/images/open_images.h"

#include "engine/base/exceptions.h"
#include "engine/base/log.h"

namespace rekeyfs::images {

using catalog::Table;
using catalog::WriteTxn;
using catalog::make_key;
using names::InodeRecord;
using names::Tree;

ImageHold::~ImageHold() {
  if (image_) owner_->release(image_->ino);
}

// --- opening and closing ---------------------------------------------------------------------------------------

Result<ImageHold> OpenImages::open(Ino ino) {
  Lock opening(opening_);
  auto found = open_.find(ino);
  if (found == open_.end()) {
    RK_TRY_ASSIGN(std::shared_ptr<Image> image, load(ino));
    found = open_.emplace(ino, Entry{std::move(image)}).first;
  }
  ++found->second.holds;
  return ImageHold(*this, found->second.image);
}

Result<std::shared_ptr<Image>> OpenImages::load(Ino ino) const {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
  if (inode.kind == NodeKind::directory) return fail(Errc::is_directory);
  if (inode.kind == NodeKind::symlink) return fail(Errc::invalid, "a symbolic link has no content");
  RK_TRY_ASSIGN(std::shared_ptr<blocks::Layer> layer, store_.layers().get(inode.image.layer));
  auto image = std::make_shared<Image>(ino);
  UniqueLock lock(image->mutex);
  image->top = std::move(layer);
  return image;
}

std::shared_ptr<Image> OpenImages::find(Ino ino) const {
  Lock opening(opening_);
  const auto found = open_.find(ino);
  return found == open_.end() ? nullptr : found->second.image;
}

bool OpenImages::is_open_elsewhere(const ImageHold& hold) const {
  Lock opening(opening_);
  return open_.at(hold->ino).holds > 1;
}

void OpenImages::release(Ino ino) noexcept {
  Lock opening(opening_);
  const auto found = open_.find(ino);
  if (--found->second.holds > 0) return;
  if (found->second.unlinked) {
    reap_now(ino);
    quotas_.forget(ino);
  }
  open_.erase(found);
}

// --- deleting --------------------------------------------------------------------------------------------------

// If the deletion of an image fails, its orphan record stays, and the next mount deletes it.
void OpenImages::reap_now(Ino ino) {
  Released released;
  const Status reaped = caught([&]() -> Status {
    WriteTxn txn(store_.catalog());
    RK_TRY(reap(txn, ino, released));
    RK_TRY(txn.commit());
    return {};
  });
  if (reaped) forget(ino, released);
  else log::warn("deleted image {} stays until the next mount: {}", ino.value(), describe(reaped.error()));
}

Status OpenImages::reap(WriteTxn& txn, Ino ino, Released& released) {
  RK_TRY_ASSIGN(const InodeRecord inode, Tree::get(txn, ino));
  RK_TRY_ASSIGN(released, store_.layers().release(txn, inode.image.layer));
  RK_TRY(tree_.erase_xattrs(txn, ino));
  txn.erase(make_key(Table::replication, ino.value()));
  txn.erase(make_key(Table::orphan, ino.value()));
  txn.erase(make_key(Table::inode, ino.value()));
  return {};
}

Status OpenImages::image_unlinked(WriteTxn& txn, Ino ino, InodeRecord& inode) NO_THREAD_SAFETY_ANALYSIS {
  RK_TRY(store_.health().may_write());
  Tree::put(txn, ino, inode);
  unlinking_ = ino;
  if (!open_.contains(ino)) return reap(txn, ino, released_);
  quotas_.keep(ino, inode.parent);
  txn.put(make_key(Table::orphan, ino.value()), "");
  return {};
}

void OpenImages::unlink_committed(bool committed) NO_THREAD_SAFETY_ANALYSIS {
  const Released released = std::exchange(released_, {});
  const Ino unlinked = std::exchange(unlinking_, Ino{});
  if (!unlinked) return;
  if (!committed) return quotas_.forget(unlinked);
  if (const auto found = open_.find(unlinked); found != open_.end()) found->second.unlinked = true;
  else forget(unlinked, released);
}

// Called after the transaction of reap(), never within it. Lock order: filler, layer, catalog.
void OpenImages::forget(Ino ino, const Released& released) {
  filler_.forget(ino);
  initializer_.forget(ino);
  store_.layers().forget(released);
}

Status OpenImages::reap_orphans() {
  std::vector<Ino> orphans;
  RK_TRY(store_.catalog().scan(make_key(Table::orphan), "", [&](std::string_view key, std::string_view) {
    orphans.push_back(Ino{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (const Ino ino : orphans)  // a damaged record must not prevent opening the store
    if (const Status reaped = reap_orphan(ino); !reaped) log::error("deleted image {} stays: {}", ino.value(), describe(reaped.error()));
  return {};
}

Status OpenImages::reap_orphan(Ino ino) {
  Released released;
  {
    WriteTxn txn(store_.catalog());
    RK_TRY(reap(txn, ino, released));
    RK_TRY(txn.commit());
  }
  forget(ino, released);
  return {};
}

}  // namespace rekeyfs::images
