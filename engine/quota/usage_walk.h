// UsageWalk: finds exactly what quotas count, by reading records; opens no image and no layer.
//
// It reads in slices and holds no lock in between, so nobody waits for it; what changes meanwhile may be counted or not.
//
// Who pays for a layer: the image that owns it. A layer without an owner is kept by the images above it; each of them
// pays, down to the first layer that another image owns. One walk counts such a layer once. Not thread-safe.
#pragma once

#include <atomic>
#include <unordered_set>
#include <vector>

#include "engine/blocks/layer_registry.h"
#include "engine/catalog/catalog.h"
#include "engine/namespace/tree.h"
#include "engine/quota/usage.h"

namespace rekeyfs::quota {

class UsageWalk {
 public:
  // All arguments must outlive the walk, which fails with Errc::busy when `stopped` becomes true.
  UsageWalk(const catalog::Catalog& catalog, const names::Tree& tree, blocks::LayerRegistry& layers, const std::atomic<bool>& stopped)
      : catalog_(catalog), tree_(tree), layers_(layers), stopped_(stopped) {}

  // All names below the directory, and the attributes of the directory itself.
  Status add_below(Ino directory);
  // The node under one of its names, with everything below it.
  Status add(Ino node);
  // The content and the attributes of an image or a link; nothing if it is deleted.
  Status add_file(Ino ino);
  const Usage& found() const { return found_; }

 private:
  Status add_entries(Ino directory, std::vector<Ino>& directories);
  Status add_attributes(Ino ino);
  Result<std::uint64_t> paid_by(Ino image, const names::InodeRecord& inode);
  struct Layers {
    std::uint64_t own = 0;        // of the top layer
    std::uint64_t inherited = 0;  // of layers below that have no owner
    std::vector<LayerId> unowned;
    bool is_rotating = false;     // the image replaces its own content
  };
  Result<Layers> layers_of(Ino image, const names::InodeRecord& inode);
  Result<std::uint64_t> bytes_of(LayerId id, const blocks::LayerRecord& record, bool& transforms);

  const catalog::Catalog& catalog_;
  const names::Tree& tree_;
  blocks::LayerRegistry& layers_;
  const std::atomic<bool>& stopped_;
  Usage found_;
  std::unordered_set<Ino> linked_;       // files with several names that were counted
  std::unordered_set<LayerId> unowned_;  // layers without an owner that were counted
};

}  // namespace rekeyfs::quota
