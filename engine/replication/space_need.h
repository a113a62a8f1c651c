// SpaceNeed: how many bytes a layer takes that is to hold what it now reads from its base. Told from what the layers below
// store, without a look at their blocks. Thread-safe.
#pragma once

#include "engine/blocks/layer_registry.h"

namespace rekeyfs::replication {

struct SpaceNeed {
  std::uint64_t least = 0;  // the base's own blocks, all of which are seen through the layer
  std::uint64_t most = 0;   // with those of the layers below, some of which younger ones replace
};

// Of a new layer of `size` bytes of content over `base`. A base in a foreign format may be compressed, or hold less than its
// file: then nothing is certain, and `most` is a guess.
Result<SpaceNeed> space_needed_over(blocks::LayerRegistry& layers, LayerId base, std::uint64_t size, formats::Format base_format);
// What is left of it for a layer that has a part already.
Result<SpaceNeed> space_left_to_fill(blocks::LayerRegistry& layers, const blocks::Layer& layer);

}  // namespace rekeyfs::replication
