// ImageStatus: what readers see of a node now: its attributes, an image's size and state, what is known of its content.
// Thread-safe.
#pragma once

#include <optional>

#include "engine/images/open_images.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::images {

class ImageStatus {
 public:
  // All outlive it.
  ImageStatus(store::Store& store, const names::Tree& tree, const OpenImages& open, const replication::Filler& filler, const Initializer& initializer)
      : store_(store), tree_(tree), open_(open), filler_(filler), initializer_(initializer) {}

  Result<Attributes> getattr(Ino ino) const;
  Result<std::uint64_t> size_of(Ino ino, const names::InodeRecord& inode) const;  // bytes
  ImageState state_of(Ino ino, const names::InodeRecord& inode) const;
  // Normal, closed by its maker, and left alone: chmod now means what it says.
  bool is_settled(Ino ino, const names::InodeRecord& inode) const;
  std::optional<names::Findings> findings_of(Ino ino, const names::InodeRecord& inode) const;
  // Whether readers may see other bytes than the findings are about, because the kernel holds changes back.
  bool may_differ(Ino ino) const;

 private:
  Result<Attributes> attributes_of(Ino ino, const names::InodeRecord& inode) const;

  store::Store& store_;
  const names::Tree& tree_;
  const OpenImages& open_;
  const replication::Filler& filler_;
  const Initializer& initializer_;
};

}  // namespace rekeyfs::images
