#include "engine/images/rotation_estimate.h"

#include <algorithm>
#include <set>

#include "engine/replication/space_need.h"

namespace rekeyfs::images {

Status RotationEstimate::add(LayerId top) {
  Image image;
  RK_TRY_ASSIGN(const auto sizes, layers_.sizes_of(top));
  RK_TRY_ASSIGN(const replication::SpaceNeed need, replication::space_needed_over(layers_, top, sizes.content, formats::Format::raw));
  image.bytes = need.most;
  RK_TRY_ASSIGN(image.chain, layers_.chain_of(top));
  images_.push_back(std::move(image));
  return {};
}

std::uint64_t RotationEstimate::bytes() const {
  std::uint64_t all = 0;
  for (const Image& image : images_) all += image.bytes;
  return all;
}

RotationEstimate::Counts RotationEstimate::readers_among_images() const {
  Counts readers;
  for (const Image& image : images_)
    for (const auto& at : image.chain) ++readers[at.id];
  return readers;
}

// How many images read from each of the layers, including images that are not re-encrypted: the owners of the layer and
// of all layers above it. A child's number is higher than its base's, so the highest are counted first.
Result<RotationEstimate::Counts> RotationEstimate::readers_of_all(const Counts& wanted) const {
  std::unordered_map<LayerId, std::vector<LayerId>> children;
  std::set<LayerId> above;
  std::vector<LayerId> left;
  for (const auto& [layer, ignored] : wanted) left.push_back(layer);
  while (!left.empty()) {
    const LayerId layer = left.back();
    left.pop_back();
    if (!above.insert(layer).second) continue;
    RK_TRY_ASSIGN(children[layer], layers_.children_of(layer));
    left.insert(left.end(), children[layer].begin(), children[layer].end());
  }
  Counts readers;
  for (auto layer = above.rbegin(); layer != above.rend(); ++layer) {
    const auto record = layers_.record_of(*layer);
    std::uint64_t count = record && record->owner ? 1 : 0;  // a layer may have been deleted since its image was added
    for (const LayerId child : children.at(*layer)) count += readers.at(child);
    readers.emplace(*layer, count);
  }
  return readers;
}

Result<std::uint64_t> RotationEstimate::peak() const {
  const Counts of_images = readers_among_images();
  RK_TRY_ASSIGN(Counts left, readers_of_all(of_images));
  std::uint64_t taken = 0, given_back = 0, peak = 0;
  for (const Image& image : images_) {
    taken += image.bytes;
    if (taken > given_back) peak = std::max(peak, taken - given_back);
    for (const auto& at : image.chain) {
      std::uint64_t& readers = left.at(at.id);
      if (readers > 0 && --readers > 0) continue;
      given_back += at.sizes.stored;
    }
  }
  return peak;
}

}  // namespace rekeyfs::images
