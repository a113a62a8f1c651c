#include "engine/images/content_touch.h"

namespace rekeyfs::images {

Status ContentTouch::touch(catalog::WriteTxn& txn, const blocks::Touch& touch) {
  using Kind = blocks::Touch::Kind;
  // Called in the transaction, because modification times can be set back and prove nothing.
  initializer_.written(touch.ino);
  RK_TRY_ASSIGN(names::InodeRecord inode, names::Tree::get(txn, touch.ino));
  inode.modified = inode.changed = now();
  inode.image.findings.reset();
  // A clone stays normal while its pieces arrive, because sharing blocks is not a replication.
  if (touch.kind == Kind::written && inode.image.state == ImageState::normal) inode.image.state = ImageState::normal_uninitialized;
  names::Tree::put(txn, touch.ino, inode);
  return {};
}

}  // namespace rekeyfs::images
