// Touch: the effect of a content change on the image's inode. A change carries this value down to the journal; Inodes,
// implemented by the owner of inodes above, adds the inode's records to the change's transaction.
#pragma once

#include "engine/catalog/catalog.h"

namespace rekeyfs::blocks {

struct Touch {
  enum class Kind {
    nothing,
    written,  // by a user
    copied,   // by one part of a copy: the image keeps the state that the copy gave it
  };
  Kind kind = Kind::nothing;
  Ino ino = {};
};

class Inodes {
 public:
  virtual ~Inodes() = default;
  // Adds records to the transaction. Called in it, while changes of the layer wait: must not call any layer.
  virtual Status touch(catalog::WriteTxn& txn, const Touch& touch) = 0;
};

}  // namespace rekeyfs::blocks
