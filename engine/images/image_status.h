// ImageStatus: the status of a node as users see it: attributes, and for images the size, state and findings.
// Thread-safe.
#pragma once

#include <optional>

#include "engine/images/open_images.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::images {

class ImageStatus {
 public:
  // All arguments must outlive it.
  ImageStatus(store::Store& store, const names::Tree& tree, const OpenImages& open, const replication::Filler& filler, const Initializer& initializer)
      : store_(store), tree_(tree), open_(open), filler_(filler), initializer_(initializer) {}

  Result<Attributes> getattr(Ino ino) const;
  Result<std::uint64_t> size_of(Ino ino, const names::InodeRecord& inode) const;  // bytes
  ImageState state_of(Ino ino, const names::InodeRecord& inode) const;
  // True if the image is normal, closed by its creator and idle. From then on chmod applies directly.
  bool is_settled(Ino ino, const names::InodeRecord& inode) const;
  std::optional<names::Findings> findings_of(Ino ino, const names::InodeRecord& inode) const;
  // Whether readers may see newer bytes than those the findings describe, because the kernel may hold delayed changes.
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
