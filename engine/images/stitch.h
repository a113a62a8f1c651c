// Stitch: a copy of one image into another that arrives in pieces: all read the source as it was at the first one.
#pragma once

#include <memory>
#include <optional>

#include "engine/images/image.h"
#include "engine/namespace/inode_record.h"
#include "engine/replication/filler.h"

namespace rekeyfs::images {

// While it lives, the replication of an image is not completed: more of it may follow.
class HeldReplication {
 public:
  HeldReplication(replication::Filler& filler, Ino image) : filler_(filler), image_(image) {}
  ~HeldReplication() { filler_.let_go(image_); }
  HeldReplication(const HeldReplication&) = delete;
  HeldReplication& operator=(const HeldReplication&) = delete;

 private:
  replication::Filler& filler_;
  const Ino image_;
};

struct Stitch {
  Ino source;
  std::shared_ptr<const blocks::BaseRef> base;  // the source's content
  std::shared_ptr<const HeldReplication> held;
  DiskInside inside;  // if it is wrapped, the first piece brings all of the disk, and the others nothing
  std::optional<names::Findings> findings;  // about the base's content
  std::uint64_t changes = 0;                // Image::changes of the target when it began
  std::uint64_t copied = 0;                 // bytes from the start on, without a gap
};

}  // namespace rekeyfs::images
