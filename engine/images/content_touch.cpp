#include "engine/images/content_touch.h"

namespace rekeyfs::images {

Status ContentTouch::touch(catalog::WriteTxn& txn, const blocks::Touch& touch) {
  using Kind = blocks::Touch::Kind;
  initializer_.written(touch.ino);  // within the transaction, because times can be set back
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, touch.ino));
  inode.modified = inode.changed = now();
  inode.image.findings.reset();
  // A clone stays normal while its pieces arrive: sharing is not replication.
  if (touch.kind == Kind::written && inode.image.state == ImageState::normal) inode.image.state = ImageState::normal_uninitialized;
  names::Tree::put(txn, touch.ino, inode);
  return {};
}

}  // namespace rekeyfs::images
