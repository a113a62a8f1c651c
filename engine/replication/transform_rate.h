// TransformRate: how fast this machine transforms an image, tried out on its first blocks. Thread-safe.
#pragma once

#include "engine/blocks/layer.h"

namespace rekeyfs::replication {

// Bytes a second of one thread that reads blocks, verified and decrypted, and encrypts them with a key of its own.
// Nothing is stored. Takes up to a tenth of a second; 0 if the layer holds no data.
Result<double> measure_transform_rate(blocks::Layer& source);

}  // namespace rekeyfs::replication
