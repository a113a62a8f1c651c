// SpaceNeed: how many bytes a layer needs to store everything that it now reads from its base. Estimated from what the
// layers below store, without looking at their blocks. Thread-safe.
#pragma once

#include "engine/blocks/layer_registry.h"

namespace rekeyfs::replication {

struct SpaceNeed {
  std::uint64_t least = 0;  // only the base's own blocks, all of which are visible through the layer
  std::uint64_t most = 0;   // also the blocks of lower layers, some of which are superseded
};

// The need of a new layer with `size` bytes of content over `base`. A base in a disk format may be compressed or hold
// less than its file: then `least` is 0 and `most` is an estimate.
Result<SpaceNeed> space_needed_over(blocks::LayerRegistry& layers, LayerId base, std::uint64_t size, formats::Format base_format);
// The remaining need of a layer that stores a part of its content already.
Result<SpaceNeed> space_left_to_fill(blocks::LayerRegistry& layers, const blocks::Layer& layer);

}  // namespace rekeyfs::replication
