// Touch: what a change of a layer's content means for the inode that shows it. A value, which goes with the change down to the
// journal; Inodes, whose owner is above, puts it into the transaction of the change.
#pragma once

#include "engine/catalog/catalog.h"

namespace rekeyfs::blocks {

struct Touch {
  enum class Kind {
    nothing,
    written,  // by a user
    copied,   // by a piece of a copy: the image stays what the copy made it
  };
  Kind kind = Kind::nothing;
  Ino ino = {};
};

class Inodes {
 public:
  virtual ~Inodes() = default;
  // Adds records to the transaction. Called within it, and with the layer's changes held up: asks no layer.
  virtual Status touch(catalog::WriteTxn& txn, const Touch& touch) = 0;
};

}  // namespace rekeyfs::blocks
