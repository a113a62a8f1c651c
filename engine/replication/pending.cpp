#include "engine/replication/pending.h"

#include "engine/base/log.h"
#include "engine/replication/replication_record.h"

namespace rekeyfs::replication {

using catalog::Table;
using catalog::make_key;

namespace {

struct OnRecord {
  Ino ino;
  std::string value;
};

Result<Pending> pending_of(store::Store& store, const names::Tree& tree, const OnRecord& record) {
  RK_TRY_ASSIGN(const names::InodeRecord inode, tree.get(record.ino));
  RK_TRY_ASSIGN(const LayerId layer, layer_to_fill(store.layers(), inode.image.layer));
  // Without the record the asker is unknown; the layer's blocks are transformed nevertheless.
  const auto asked = ReplicationRecord::decode(record.value);
  if (!asked) log::error("the replication of {}: {}", tree.path_of(record.ino), describe(asked.error()));
  return Pending{record.ino, layer, asked ? asked->uid : 0, inode.image.error};
}

Status add_images(store::Store& store, const names::Tree& tree, std::vector<Pending>& pending) {
  std::vector<OnRecord> records;
  RK_TRY(store.catalog().scan(make_key(Table::replication), "", [&](std::string_view key, std::string_view value) {
    records.push_back({Ino{Reader(key.substr(1)).get_be64()}, std::string(value)});
    return true;
  }));
  for (const OnRecord& record : records) {
    const auto one = pending_of(store, tree, record);
    if (one) pending.push_back(*one);
    else
      log::error("cannot resume the replication of {}: {}", tree.path_of(record.ino), describe(one.error()));
  }
  return {};
}

Result<bool> is_to_be_filled(const blocks::LayerRegistry& layers, LayerId layer) {
  RK_TRY_ASSIGN(const auto base, layers.base_of(layer));
  if (!base.is_transformed) return false;
  return has_clones(layers, layer);  // layers above that transform its blocks will not need it for long
}

Status add_layers_without_image(store::Store& store, std::vector<Pending>& pending) {
  std::vector<LayerId> found;
  RK_TRY(store.catalog().scan(make_key(Table::layer), "", [&](std::string_view key, std::string_view value) {
    const auto record = blocks::LayerRecord::decode(value);
    if (record && record->base && !record->owner) found.push_back(LayerId{Reader(key.substr(1)).get_be64()});
    return true;
  }));
  for (const LayerId layer : found) {
    const auto needed = is_to_be_filled(store.layers(), layer);
    if (!needed)
      log::error("cannot resume the replication of layer {}: {}", layer.value(), describe(needed.error()));
    else if (*needed) pending.push_back({Ino{}, layer, 0, ""});
  }
  return {};
}

}  // namespace

Result<std::vector<Pending>> list_pending(store::Store& store, const names::Tree& tree) {
  std::vector<Pending> pending;
  RK_TRY(add_images(store, tree, pending));
  RK_TRY(add_layers_without_image(store, pending));
  return pending;
}

Result<LayerId> layer_to_fill(const blocks::LayerRegistry& layers, LayerId top) {
  for (LayerId id = top;;) {
    RK_TRY_ASSIGN(const auto base, layers.base_of(id));
    if (!base.id) return top;
    if (base.is_transformed) return id;
    id = base.id;
  }
}

Result<bool> has_clones(const blocks::LayerRegistry& layers, LayerId layer) {
  RK_TRY_ASSIGN(const std::vector<LayerId> children, layers.children_of(layer));
  for (const LayerId child : children) {
    RK_TRY_ASSIGN(const auto base, layers.base_of(child));
    if (!base.is_transformed) return true;
  }
  return false;
}

}  // namespace rekeyfs::replication
