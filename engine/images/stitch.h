// Stitch: a copy of an image that arrives in pieces. All pieces read the source as it was at the first piece.
#pragma once

#include <memory>
#include <optional>

#include "engine/images/image.h"
#include "engine/namespace/inode_record.h"
#include "engine/quota/account.h"
#include "engine/replication/filler.h"

namespace rekeyfs::images {

// While it exists, the image's replication is not completed, because more pieces of the copy may follow.
class HeldReplication {
 public:
  HeldReplication(replication::Filler& filler, LayerId layer) : filler_(filler), layer_(layer) { filler_.hold(layer_); }
  ~HeldReplication() { filler_.let_go(layer_); }
  HeldReplication(const HeldReplication&) = delete;
  HeldReplication& operator=(const HeldReplication&) = delete;

 private:
  replication::Filler& filler_;
  const LayerId layer_;
};

struct Stitch {
  Ino source;
  std::shared_ptr<const blocks::BaseRef> base;  // the source's content
  std::shared_ptr<const HeldReplication> held;
  DiskInside inside;  // if the source is in a disk format, the first piece copies the whole disk and later ones nothing
  std::optional<names::Findings> findings;  // about the content of `base`
  std::uint64_t changes = 0;                // the target's Image::changes when the copy began
  std::uint64_t copied = 0;                 // contiguous bytes from the start
  std::shared_ptr<const quota::Charge> charged;  // null: a clone, which stores nothing
  std::uint64_t charged_to = 0;                  // the end of what it was charged for, in bytes of content
};

}  // namespace rekeyfs::images
