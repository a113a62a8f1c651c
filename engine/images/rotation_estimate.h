// RotationEstimate: how much is transformed, and how much space is taken at one time, when images are encrypted anew one after
// the other. Not thread-safe.
//
// An image that is encrypted anew goes on in a layer over those it has. These go when it is complete, but a layer that other
// images read from, its clones, goes only with the last of them: each clone is transformed in full.
#pragma once

#include <unordered_map>
#include <vector>

#include "engine/blocks/layer_registry.h"

namespace rekeyfs::images {

class RotationEstimate {
 public:
  explicit RotationEstimate(blocks::LayerRegistry& layers) : layers_(layers) {}

  // The top layer of an image, in the order in which they will be done.
  Status add(LayerId top);
  std::uint64_t images() const { return images_.size(); }
  std::uint64_t bytes() const;  // to transform, at most
  // More than is stored now, at most, at one time.
  Result<std::uint64_t> peak() const;

 private:
  struct Image {
    std::uint64_t bytes = 0;
    std::vector<LayerId> chain;  // youngest first
  };
  using Counts = std::unordered_map<LayerId, std::uint64_t>;
  Counts readers_among_images() const;
  Result<Counts> readers_of_all(const Counts& wanted) const;

  blocks::LayerRegistry& layers_;
  std::vector<Image> images_;
};

}  // namespace rekeyfs::images
