#include "engine/replication/space_need.h"

#include <algorithm>

namespace rekeyfs::replication {
namespace {
// The block table has one page per 128 blocks of 16 KiB, and the pages above; doubled for safety.
constexpr std::uint64_t kShareOfTables = 256;
}  // namespace

Result<SpaceNeed> space_needed_over(blocks::LayerRegistry& layers, LayerId base, std::uint64_t size, formats::Format base_format) {
  SpaceNeed need;
  RK_TRY_ASSIGN(const auto chain, layers.chain_of(base));
  const auto& top = chain.front().sizes;
  for (const auto& at : chain) need.most += at.sizes.stored;
  need.most = std::min(need.most, size);
  need.least = base_format == formats::Format::raw ? std::min(top.stored, need.most) : 0;
  need.least += need.least / kShareOfTables;
  need.most += need.most / kShareOfTables;
  return need;
}

Result<SpaceNeed> space_left_to_fill(blocks::LayerRegistry& layers, const blocks::Layer& layer) {
  const std::shared_ptr<blocks::Layer> base = layer.base();
  if (!base) return SpaceNeed{};
  RK_TRY_ASSIGN(SpaceNeed need, space_needed_over(layers, base->id(), layer.size(), layer.made_as().base_format));
  const std::uint64_t here = layer.stored(), filled = layer.filled() * layer.block_size();
  const std::uint64_t left = layer.size() - std::min(layer.size(), filled);
  need.least = std::min(need.least - std::min(need.least, here), left);
  need.most = std::min(need.most - std::min(need.most, here), left);
  return need;
}

}  // namespace rekeyfs::replication
