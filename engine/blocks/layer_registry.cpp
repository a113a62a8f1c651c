#include "engine/blocks/layer_registry.h"

#include <algorithm>

namespace rekeyfs::blocks {

using catalog::Table;
using catalog::make_key;

namespace {

constexpr std::size_t kMaxRecent = 128;

// Whether the layer or one of its bases is encrypted with the key. `known`: the answers so far, because layers share
// their bases, and a chain of copies is as long as its user wants.
bool reads_with(const std::shared_ptr<Layer>& top, const kms::KeyId& key, std::unordered_map<LayerId, bool>& known) {
  std::vector<LayerId> above;
  bool found = false;
  for (std::shared_ptr<Layer> layer = top; layer && !found; layer = layer->base()) {
    if (const auto before = known.find(layer->id()); before != known.end()) {
      found = before->second;
      break;
    }
    above.push_back(layer->id());
    found = layer->made_as().key == key;
  }
  for (const LayerId layer : above) known.emplace(layer, found);
  return found;
}

}  // namespace

Result<std::unique_ptr<LayerRegistry>> LayerRegistry::create(io::Storage& storage, catalog::Catalog& catalog,
                                                             kms::KeyDirectory& keys, const crypto::Key& root, const Uuid& store) {
  // Not derived from data keys, so that a store can be recovered and checked without its master keys.
  RK_TRY_ASSIGN(const crypto::Key mac_key, crypto::derive_key(root, store, "rekeyfs block tables"));
  RK_TRY_ASSIGN(crypto::Mac table_mac, crypto::Mac::create(mac_key));
  return std::unique_ptr<LayerRegistry>(new LayerRegistry(storage, catalog, keys, root, store, std::move(table_mac)));
}

std::shared_ptr<Layer> LayerRegistry::find_open(LayerId id) {
  Lock lock(mutex_);
  const auto found = open_.find(id);
  return found == open_.end() ? nullptr : found->second.lock();
}

Result<std::shared_ptr<Layer>> LayerRegistry::get(LayerId id) {
  if (std::shared_ptr<Layer> layer = find_open(id)) return layer;
  Lock loading(loading_);
  return get_locked(id);
}

// Opens the layer and those of its bases that are not open. Iterative, because a chain of clones may be longer than the
// stack is deep.
Result<std::shared_ptr<Layer>> LayerRegistry::get_locked(LayerId top) {
  std::vector<NewLayer> closed;  // each is the base of the previous one
  std::shared_ptr<Layer> layer;
  for (LayerId id = top; !(layer = find_open(id));) {
    RK_TRY_ASSIGN(NewLayer next, load(id));
    id = next.record.base;
    closed.push_back(std::move(next));
    if (!id) break;
  }
  for (; !closed.empty(); closed.pop_back()) {
    layer = assemble(closed.back(), std::move(layer));
    remember(layer);
  }
  return layer;
}

Result<std::shared_ptr<Layer>> LayerRegistry::open_new(const NewLayer& layer) {
  Lock loading(loading_);
  std::shared_ptr<Layer> base;
  if (layer.record.base) {
    RK_TRY_ASSIGN(base, get_locked(layer.record.base));
  }
  std::shared_ptr<Layer> made = assemble(layer, std::move(base));
  Lock lock(mutex_);
  open_[made->id()] = made;  // not added to recent_, which would keep its base held if its record is not put
  return made;
}

void LayerRegistry::remember(const std::shared_ptr<Layer>& layer) {
  std::shared_ptr<Layer> oldest;  // released without the lock: it may have a format reader to end
  Lock lock(mutex_);
  if (open_.size() > 4 * kMaxRecent) std::erase_if(open_, [](const auto& entry) { return entry.second.expired(); });
  open_[layer->id()] = layer;
  recent_.push_front(layer);
  if (recent_.size() <= kMaxRecent) return;
  oldest = std::move(recent_.back());
  recent_.pop_back();
}

Result<LayerRegistry::NewLayer> LayerRegistry::load(LayerId id) const {
  NewLayer layer;
  layer.id = id;
  RK_TRY_ASSIGN(layer.record, record_of(id));
  if (layer.record.base >= id)
    return fail(Errc::corrupt, "layer " + std::to_string(id.value()) + " names layer " + std::to_string(layer.record.base.value()) +
                                   " as its base, which is not older: run 'rekeyfs check' on the store");
  RK_TRY_ASSIGN(const auto table_bytes, catalog_.get(make_key(Table::layer_table, id.value())));
  if (!table_bytes) return fail(Errc::corrupt, "layer " + std::to_string(id.value()) + " has no table record");
  RK_TRY_ASSIGN(layer.table, LayerTableRecord::decode(*table_bytes));
  return layer;
}

std::shared_ptr<Layer> LayerRegistry::assemble(const NewLayer& layer, std::shared_ptr<Layer> base) {
  const LayerRecord& record = layer.record;
  auto cipher = std::make_unique<LayerCipher>(record.suite, store_, layer.id, [this, id = layer.id, record = layer.record] { return current_data_key_of(id, record); },
                                              record.key ? keys_.gate_of(*record.key) : nullptr, catalog_.epochs());
  const Layer::Parts parts{{storage_, catalog_, table_mac_, budget_, *this}, format_readers_};
  auto held = base ? std::make_shared<const BaseRef>(std::move(base)) : nullptr;
  return std::make_shared<Layer>(parts, layer.id, record, layer.table, std::move(cipher), std::move(held));
}

std::vector<Ino> LayerRegistry::forget_keys_of(const kms::KeyId& key) {
  // Outlives the lock, because a layer must not be destroyed under the mutex.
  std::vector<std::shared_ptr<Layer>> layers;
  {
    Lock lock(mutex_);
    for (const auto& [id, held] : open_)
      if (std::shared_ptr<Layer> layer = held.lock()) layers.push_back(std::move(layer));
  }
  for (const std::shared_ptr<Layer>& layer : layers)
    if (layer->made_as().key == key) layer->forget_key();
  std::vector<Ino> images;
  std::unordered_map<LayerId, bool> known;
  for (const std::shared_ptr<Layer>& layer : layers)
    if (layer->made_as().owner && reads_with(layer, key, known)) images.push_back(layer->made_as().owner);
  return images;
}

Result<LayerRecord> LayerRegistry::record_of(LayerId id) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::layer, id.value())));
  if (!bytes) return fail(Errc::corrupt, "layer " + std::to_string(id.value()) + " has no record");
  return LayerRecord::decode(*bytes);
}

Result<LayerRegistry::Base> LayerRegistry::base_of(LayerId id) const {
  RK_TRY_ASSIGN(const LayerRecord record, record_of(id));
  if (!record.base) return Base{};
  RK_TRY_ASSIGN(const LayerRecord base, record_of(record.base));
  return Base{record.base, record.transforms(base)};
}

// A layer below the top is deleted only after a layer above it has got a record without a base: a second walk does not
// come to it.
Result<std::vector<LayerRegistry::LayerAt>> LayerRegistry::chain_of(LayerId top) {
  constexpr int kMaxWalks = 8;
  for (int walk = 1;; ++walk) {
    auto chain = walk_down(top);
    if (chain || walk == kMaxWalks) return chain;
  }
}

Result<std::vector<LayerRegistry::LayerAt>> LayerRegistry::walk_down(LayerId top) {
  std::vector<LayerAt> chain;
  for (LayerId id = top; id; id = chain.back().record.base) {
    RK_TRY_ASSIGN(LayerRecord record, record_of(id));
    RK_TRY_ASSIGN(const Sizes sizes, sizes_of(id));
    chain.push_back({id, std::move(record), sizes});
  }
  return chain;
}

Result<std::vector<LayerId>> LayerRegistry::children_of(LayerId id) const {
  std::vector<LayerId> children;
  RK_TRY(catalog_.scan(make_key(Table::child, id.value()), "", [&](std::string_view key, std::string_view) {
    children.push_back(LayerId{Reader(key.substr(9)).get_be64()});
    return true;
  }));
  return children;
}

std::string LayerRegistry::wrap_context(LayerId id) const {
  return Writer().put_raw(as_bytes("rekeyfs data key")).put_raw(store_).put(id.value()).take();
}

// The key of a plain layer only authenticates; it is derived from the store's root key.
Result<crypto::Key> LayerRegistry::data_key_of(LayerId id, const LayerRecord& record) const {
  const std::string context = wrap_context(id);
  if (!record.key) return crypto::derive_key(root_, as_bytes(context), "rekeyfs plain layer");
  return keys_.unwrap(*record.key, record.data_key, as_bytes(context));
}

// The layer may have been opened before its master key got a new version. The record then has the data key wrapped by
// the new version, and the old version may be gone.
Result<crypto::Key> LayerRegistry::current_data_key_of(LayerId id, const LayerRecord& made_as) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::layer, id.value())));
  if (!bytes) return data_key_of(id, made_as);  // a new layer without a record yet
  RK_TRY_ASSIGN(const LayerRecord record, LayerRecord::decode(*bytes));
  return data_key_of(id, record);
}

Result<std::optional<LayerRegistry::Rewrapped>> LayerRegistry::rewrap(LayerId id) const {
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::layer, id.value())));
  if (!bytes) return std::optional<Rewrapped>{};
  RK_TRY_ASSIGN(const LayerRecord record, LayerRecord::decode(*bytes));
  if (!record.key) return std::optional<Rewrapped>{};
  RK_TRY_ASSIGN(const kms::KeyInfo key, keys_.find(*record.key));
  if (record.data_key.version == key.version) return std::optional<Rewrapped>{};
  RK_TRY_ASSIGN(const crypto::Key data_key, data_key_of(id, record));
  RK_TRY_ASSIGN(kms::WrappedKey wrapped, keys_.wrap(key.id, data_key, as_bytes(wrap_context(id))));
  return std::optional(Rewrapped{id, record.data_key, std::move(wrapped)});
}

Status LayerRegistry::put_rewrapped(catalog::WriteTxn& txn, const Rewrapped& rewrapped) const {
  const std::string key = make_key(Table::layer, rewrapped.layer.value());
  RK_TRY_ASSIGN(const auto bytes, txn.get(key));
  if (!bytes) return {};  // the layer was deleted meanwhile
  RK_TRY_ASSIGN(LayerRecord record, LayerRecord::decode(*bytes));
  if (record.data_key != rewrapped.before) return {};
  record.data_key = rewrapped.after;
  txn.put(key, record.encode());
  return {};
}

Result<LayerRegistry::NewLayer> LayerRegistry::draw(const std::optional<kms::KeyId>& key) {
  NewLayer layer;
  layer.id = catalog_.new_layer();
  layer.record.key = key;
  if (!key) return layer;
  layer.record.suite = crypto::Suite::aes_256_gcm;
  RK_TRY_ASSIGN(const crypto::Key data_key, crypto::Key::random());
  RK_TRY_ASSIGN(layer.record.data_key, keys_.wrap(*key, data_key, as_bytes(wrap_context(layer.id))));
  return layer;
}

void LayerRegistry::NewLayer::place_over(LayerId base, std::uint64_t size, bool from_base, formats::Format format, std::uint64_t disk_size) {
  record.base = base;
  record.base_format = format;
  record.disk_size = disk_size;
  table.size = size;
  if (!from_base) return;
  table.root.state = TableRoot::State::base;
  table.root.levels = BlockTable::levels_for(size / kBlockSize + 1);
}

void LayerRegistry::put(catalog::WriteTxn& txn, const NewLayer& layer) {
  txn.put(make_key(Table::layer, layer.id.value()), layer.record.encode());
  txn.put(make_key(Table::layer_table, layer.id.value()), layer.table.encode());
  if (layer.record.base) txn.put(make_key(Table::child, layer.record.base.value(), layer.id.value()), "");
}

Result<std::vector<LayerRegistry::Released>> LayerRegistry::release(catalog::WriteTxn& txn, LayerId id) {
  std::vector<Released> out;
  RK_TRY_ASSIGN(LayerRecord record, record_of(id));
  RK_TRY_ASSIGN(const std::vector<LayerId> children, children_of(id));
  if (children.empty()) {
    bury(txn, id, record, out);
    RK_TRY(release_base(txn, record.base, id, out));
  } else {
    RK_TRY(disown(txn, id));
  }
  return out;
}

Status LayerRegistry::disown(catalog::WriteTxn& txn, LayerId id) {
  RK_TRY_ASSIGN(LayerRecord record, record_of(id));
  record.owner = Ino{};
  disowned_.fetch_add(1);
  txn.put(make_key(Table::layer, id.value()), record.encode());
  return {};
}

Result<std::vector<LayerRegistry::Released>> LayerRegistry::detach(catalog::WriteTxn& txn, LayerId id) {
  std::vector<Released> out;
  RK_TRY_ASSIGN(LayerRecord record, record_of(id));
  const LayerId base = record.take_base();
  txn.put(make_key(Table::layer, id.value()), record.encode());
  RK_TRY(release_base(txn, base, id, out));
  return out;
}

void LayerRegistry::bury(catalog::WriteTxn& txn, LayerId id, const LayerRecord& record, std::vector<Released>& out) {
  txn.erase(make_key(Table::layer, id.value()));
  txn.erase(make_key(Table::layer_table, id.value()));
  txn.erase(make_key(Table::profile, id.value()));
  txn.put(make_key(Table::garbage, id.value()), "");
  out.push_back({id, record.base});
}

// Removes the record that `child` reads from `base` (if not 0).
Status LayerRegistry::release_base(catalog::WriteTxn& txn, LayerId base, LayerId child, std::vector<Released>& out) {
  while (base) {
    txn.erase(make_key(Table::child, base.value(), child.value()));
    RK_TRY_ASSIGN(const LayerRecord record, record_of(base));
    RK_TRY_ASSIGN(const std::vector<LayerId> children, children_of(base));
    if (record.owner || std::any_of(children.begin(), children.end(), [&](LayerId other) { return other != child; })) return {};
    bury(txn, base, record, out);
    child = std::exchange(base, record.base);
  }
  return {};
}

void LayerRegistry::forget(const std::vector<Released>& released) {
  for (const Released& gone : released) {
    if (const std::shared_ptr<Layer> base = gone.base ? find_open(gone.base) : nullptr) base->sharing().record_erased();
    const std::shared_ptr<Layer> layer = find_open(gone.layer);  // released without the lock, as in remember()
    if (layer) layer->retire();
    Lock lock(mutex_);
    changed_.erase(gone.layer);
    open_.erase(gone.layer);
    std::erase_if(recent_, [&](const auto& one) { return one->id() == gone.layer; });
  }
}

void LayerRegistry::close_all() {
  Lock lock(mutex_);
  recent_.clear();
  open_.clear();
  changed_.clear();
}

Result<LayerRegistry::Sizes> LayerRegistry::sizes_of(LayerId id) {
  if (const std::shared_ptr<Layer> layer = find_open(id)) return Sizes{layer->size(), layer->stored()};
  RK_TRY_ASSIGN(const auto bytes, catalog_.get(make_key(Table::layer_table, id.value())));
  if (!bytes) return fail(Errc::corrupt, "layer " + std::to_string(id.value()) + " has no table record");
  RK_TRY_ASSIGN(const LayerTableRecord table, LayerTableRecord::decode(*bytes));
  return Sizes{table.size, table.stored};
}

Status LayerRegistry::note_promised(LayerId id) {
  RK_TRY_ASSIGN(const LayerRecord seen, record_of(id));
  if (seen.promised) return {};
  catalog::WriteTxn txn(catalog_);
  RK_TRY_ASSIGN(LayerRecord record, record_of(id));
  record.promised = true;
  txn.put(make_key(Table::layer, id.value()), record.encode());
  RK_TRY(txn.commit());
  return {};
}

Result<std::uint64_t> LayerRegistry::occupied_by(LayerId id) const {
  std::uint64_t bytes = 0;
  for (const std::string_view kind : {".data", ".spill"}) {
    for (int number = 0;; ++number) {
      const auto file = storage_.open(layer_path(id) + std::string(kind) + std::to_string(number), io::OpenMode::read);
      if (!file && file.error().code == Errc::not_found) break;
      if (!file) return fail(file.error());
      RK_TRY_ASSIGN(const std::uint64_t size, (*file)->size());
      RK_TRY_ASSIGN(const std::uint64_t held, (*file)->reserved(0, size));
      bytes += held;
    }
  }
  return bytes;
}

void LayerRegistry::layer_changed(LayerId layer) {
  Lock lock(mutex_);
  if (const auto found = open_.find(layer); found != open_.end())  // otherwise it was deleted
    if (std::shared_ptr<Layer> object = found->second.lock()) changed_.insert_or_assign(layer, std::move(object));
}

Status LayerRegistry::touch(catalog::WriteTxn& txn, const Touch& touch) { return inodes_->touch(txn, touch); }

bool LayerRegistry::has_changed() const {
  Lock lock(mutex_);
  return !changed_.empty();
}

BlockStore::Pressure LayerRegistry::pressure() const {
  std::vector<std::shared_ptr<Layer>> layers;
  {
    Lock lock(mutex_);
    for (const auto& [id, layer] : changed_) layers.push_back(layer);
  }
  BlockStore::Pressure sum;
  for (const auto& layer : layers) {
    const BlockStore::Pressure one = layer->blocks().pressure();
    sum.dirty_pages += one.dirty_pages;
    sum.limbo_slots += one.limbo_slots;
  }
  return sum;
}

LayerRegistry::Changed LayerRegistry::take_changed() {
  Lock lock(mutex_);
  return std::exchange(changed_, {});
}

void LayerRegistry::put_back(Changed& changed) {
  Lock lock(mutex_);
  changed_.merge(changed);
}

}  // namespace rekeyfs::blocks
