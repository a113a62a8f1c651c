// BaseRef: a hold on a base layer. While any BaseRef to a layer exists, the layer's content does not change: a write to
// an image whose top layer is held goes to a new layer above it.
//
// Each layer that has a base owns a BaseRef from its construction until it is destroyed or detached from the base. A
// copy in progress owns one, too. The hold begins and ends with the object. To construct one for the top layer of an
// image, the caller holds Image::mutex exclusively, so that no change of the layer is in progress.
#pragma once

#include <memory>

#include "engine/blocks/sharing.h"

namespace rekeyfs::blocks {

class Layer;

class BaseRef {
 public:
  explicit BaseRef(std::shared_ptr<Layer> layer);  // must not be null
  BaseRef(BaseRef&&) noexcept = default;

  const std::shared_ptr<Layer>& layer() const { return layer_; }

 private:
  std::shared_ptr<Layer> layer_;
  Sharing::Hold hold_;  // released before layer_
};

}  // namespace rekeyfs::blocks
