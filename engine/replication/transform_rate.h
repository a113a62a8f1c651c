// TransformRate: measures how fast this machine transforms an image, on the image's first blocks. Thread-safe.
#pragma once

#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

// Bytes per second of one thread that reads, verifies, decrypts and re-encrypts blocks under a temporary key. Stores
// nothing. Takes up to 0.1 s; 0 if the layer holds no data.
Result<double> measure_transform_rate(blocks::Layer& source);

}  // namespace rekeyfs::replication
