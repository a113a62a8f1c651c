// BaseRef: a hold on a layer that its holder reads from. While there is one, the content of the layer does not change: an
// image whose top it is goes on in a new layer.
//
// Every layer over another one has a BaseRef, from its making until it goes or lets go of its base, and so has a copy that is
// being made. The hold begins with the object and ends with it. To hold the top layer of an image, the caller holds
// Image::mutex exclusively: then no change of the layer is under way.
#pragma once

#include <memory>

#include "engine/blocks/sharing.h"

namespace rekeyfs::blocks {

class Layer;

class BaseRef {
 public:
  explicit BaseRef(std::shared_ptr<Layer> layer);  // not null
  BaseRef(BaseRef&&) noexcept = default;

  const std::shared_ptr<Layer>& layer() const { return layer_; }

 private:
  std::shared_ptr<Layer> layer_;
  Sharing::Hold hold_;  // ends before the layer does
};

}  // namespace rekeyfs::blocks
