// ContentTouch: updates an image's inode when its content changes: times, findings, state. Thread-safe.
#pragma once

#include "engine/blocks/touch.h"
#include "engine/images/initializer.h"

namespace rekeyfs::images {

class ContentTouch final : public blocks::Inodes {
 public:
  explicit ContentTouch(Initializer& initializer) : initializer_(initializer) {}  // must outlive it
  Status touch(catalog::WriteTxn& txn, const blocks::Touch& touch) override;

 private:
  Initializer& initializer_;
};

}  // namespace rekeyfs::images
