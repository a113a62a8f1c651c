#include "engine/blocks/base_ref.h"

#include "engine/blocks/layer.h"

namespace rekeyfs::blocks {

BaseRef::BaseRef(std::shared_ptr<Layer> layer) : layer_(std::move(layer)), hold_(layer_->sharing()) {}

}  // namespace rekeyfs::blocks
