// RotationEstimate: how many bytes a rotation transforms, and how much additional space it needs at its peak, if images
// are re-encrypted one after the other. Not thread-safe.
//
// A re-encrypted image continues in a new layer over its existing ones. When it is complete, the existing layers are
// deleted, except those that other images (its clones) still read: such a layer is deleted with its last reader, and
// every clone is transformed in full.
#pragma once

#include <unordered_map>
#include <vector>

#include "engine/blocks/layer_registry.h"

namespace rekeyfs::images {

class RotationEstimate {
 public:
  explicit RotationEstimate(blocks::LayerRegistry& layers) : layers_(layers) {}

  // Adds an image by its top layer. Call in the order in which images will be re-encrypted.
  Status add(LayerId top);
  std::uint64_t images() const { return images_.size(); }
  std::uint64_t bytes() const;  // upper bound of the bytes to transform
  // Upper bound of the bytes stored at any time beyond those stored now.
  Result<std::uint64_t> peak() const;

 private:
  struct Image {
    std::uint64_t bytes = 0;
    std::vector<blocks::LayerRegistry::LayerAt> chain;
  };
  using Counts = std::unordered_map<LayerId, std::uint64_t>;
  Counts readers_among_images() const;
  Result<Counts> readers_of_all(const Counts& wanted) const;

  blocks::LayerRegistry& layers_;
  std::vector<Image> images_;
};

}  // namespace rekeyfs::images
