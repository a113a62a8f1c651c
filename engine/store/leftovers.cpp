#include "engine/store/leftovers.h"

#include <set>

#include "engine/base/log.h"
#include "engine/blocks/slot_files.h"

namespace rekeyfs::store {

using catalog::Table;
using catalog::make_key;

namespace {

// No layer number can be further ahead of the last checkpoint: such a file was not made by this program.
constexpr std::uint64_t kFarthest = std::uint64_t{1} << 32;

// A directory that cannot be listed is damage, which a check reports.
std::set<LayerId> layers_with_files(io::Storage& storage, std::uint64_t next_layer) {
  std::set<LayerId> layers;
  const auto directories = storage.list("layers");
  for (const std::string& directory : directories.value_or(std::vector<std::string>{})) {
    const auto names = storage.list("layers/" + directory);
    for (const std::string& name : names.value_or(std::vector<std::string>{})) {
      const auto layer = blocks::layer_of_file(name);
      const bool can_be = layer && blocks::layer_directory(*layer) == "layers/" + directory;
      if (can_be && (layer->value() < next_layer || layer->value() - next_layer < kFarthest)) layers.insert(*layer);
    }
  }
  return layers;
}

}  // namespace

Status mark_leftovers(io::Storage& storage, catalog::Catalog& catalog) {
  std::set<LayerId> layers = layers_with_files(storage, catalog.checkpointed().next_layer);
  for (const Table table : {Table::layer, Table::garbage})
    RK_TRY(catalog.scan(make_key(table), "", [&](std::string_view key, std::string_view) {
      layers.erase(LayerId{Reader(key.substr(1)).get_be64()});
      return true;
    }));
  if (!layers.empty()) log::info("recovery: removing the files of {} layers that the catalog does not know", layers.size());
  for (const LayerId layer : layers) {
    catalog::Op mark;
    mark.key = make_key(Table::garbage, layer.value());
    catalog.recover_op(mark);
  }
  return {};
}

}  // namespace rekeyfs::store
