// LayerRegistry: makes, opens and forgets layers. There is at most one Layer object per layer.
//
// Thread-safe. draw() and rewrap() may call the key service: do not call them in a WriteTxn or under a lock. put(),
// put_rewrapped(), release(), disown() and detach() are called in a WriteTxn.
#pragma once

#include <list>
#include <map>
#include <unordered_map>

#include "engine/blocks/layer.h"
#include "engine/kms/key_directory.h"

namespace rekeyfs::blocks {

class LayerRegistry final : public LayerObserver {
 public:
  // All arguments must outlive the registry.
  static Result<std::unique_ptr<LayerRegistry>> create(io::Storage& storage, catalog::Catalog& catalog, kms::KeyDirectory& keys,
                                                       const crypto::Key& root, const Uuid& store);

  // Sets the owner of inodes, which applies each Touch. Call once, before the first change that carries a Touch;
  // `inodes` must outlive the last one.
  void set_inodes(Inodes* inodes) { inodes_ = inodes; }

  Result<std::shared_ptr<Layer>> get(LayerId id);

  // A layer that has no record yet.
  struct NewLayer {
    LayerId id;
    LayerRecord record;
    LayerTableRecord table;

    // With `from_base`, all content up to `size` is in state "base", else it is a hole. See LayerRecord for `format`
    // and `disk_size`.
    void place_over(LayerId base, std::uint64_t size, bool from_base, formats::Format format = formats::Format::raw,
                    std::uint64_t disk_size = 0);
  };
  // Draws the number and the data key of an empty layer without a base or an owner. Without `key` the layer is plain.
  // May call the key service: do not call it in a transaction or under a lock.
  Result<NewLayer> draw(const std::optional<kms::KeyId>& key);
  // Opens the layer before its record exists, because nothing may fail after the commit. The layer holds its base. If
  // the caller does not commit the record, it drops the object and nothing is left.
  Result<std::shared_ptr<Layer>> open_new(const NewLayer& layer);
  // Adds the records of a new layer to the transaction.
  static void put(catalog::WriteTxn& txn, const NewLayer& layer);
  // The image that owned the layer no longer needs it. Adds to the transaction the changed records of the layer and of
  // all bases that become unused: a layer with readers above it stays without an owner, any other becomes garbage.
  struct Released {
    LayerId layer;
    LayerId base;  // its former base
  };
  Result<std::vector<Released>> release(catalog::WriteTxn& txn, LayerId id);
  // Removes the layer's owner: a younger layer above it takes its place.
  Status disown(catalog::WriteTxn& txn, LayerId id);
  // How many layers have lost their owner since the store was opened. Never decreases.
  std::uint64_t disowned() const { return disowned_.load(); }
  // The layer stores all of its content: adds records without a base to the transaction. The base may become garbage.
  Result<std::vector<Released>> detach(catalog::WriteTxn& txn, LayerId id);
  // Called after the commit. Deleted layers are no longer flushed, and their bases may change. The next checkpoint
  // removes their files.
  void forget(const std::vector<Released>& released);

  // All open layers whose data key is wrapped by `key` wipe it and all keys derived from it. Returns all open images
  // whose content is read through such a layer.
  std::vector<Ino> forget_keys_of(const kms::KeyId& key);

  // Drops every layer object; none may be in use or have unflushed changes.
  void close_all();

  // Bytes of content and bytes stored; does not open the layer.
  struct Sizes {
    std::uint64_t content, stored;
  };
  Result<Sizes> sizes_of(LayerId id);
  // Records that space is promised to blocks of the layer. Call before Layer::promise(); not in a transaction.
  Status note_promised(LayerId id);
  // Bytes that the layer's data files occupy on the disk: stored blocks, promised space, slots that are not freed yet. 0
  // if the file system cannot tell.
  Result<std::uint64_t> occupied_by(LayerId id) const;

  using Changed = std::map<LayerId, std::shared_ptr<Layer>>;
  Changed take_changed();           // layers changed since the last call
  void put_back(Changed& changed);  // returns layers that were not flushed after all; allocates nothing
  void layer_changed(LayerId layer) override;
  Status touch(catalog::WriteTxn& txn, const Touch& touch) override;
  bool has_changed() const;
  BlockStore::Pressure pressure() const;  // sum over all layers
  PageBudget& page_budget() { return budget_; }  // shared by the tables of all layers

  Result<LayerRecord> record_of(LayerId id) const;
  struct Base {
    LayerId id;                   // 0: none
    bool is_transformed = false;  // false: the layer above is a clone of it
  };
  Result<Base> base_of(LayerId id) const;
  // A layer and what it stores, and the same of all layers below it, the youngest first. Layers that are deleted
  // meanwhile, because one above them stores all of its content now, are not in it.
  struct LayerAt {
    LayerId id;
    LayerRecord record;
    Sizes sizes;
  };
  Result<std::vector<LayerAt>> chain_of(LayerId top);
  // The layers whose base is `id`.
  Result<std::vector<LayerId>> children_of(LayerId id) const;

  // A data key with a new wrapping. The layer's blocks are unchanged.
  struct Rewrapped {
    LayerId layer;
    kms::WrappedKey before, after;
  };
  // Wraps the layer's data key with the newest version of its master key. nullopt if it already is, or if the layer is
  // gone.
  Result<std::optional<Rewrapped>> rewrap(LayerId id) const;
  // Adds the layer's record with the new wrapping to the transaction, if the record still has the old one.
  Status put_rewrapped(catalog::WriteTxn& txn, const Rewrapped& rewrapped) const;

 private:
  LayerRegistry(io::Storage& storage, catalog::Catalog& catalog, kms::KeyDirectory& keys, const crypto::Key& root,
                const Uuid& store, crypto::Mac table_mac)
      : storage_(storage), catalog_(catalog), keys_(keys), root_(root), store_(store), table_mac_(std::move(table_mac)) {}
  Result<crypto::Key> data_key_of(LayerId id, const LayerRecord& record) const;
  Result<crypto::Key> current_data_key_of(LayerId id, const LayerRecord& made_as) const;
  std::string wrap_context(LayerId id) const;
  Result<NewLayer> load(LayerId id) const;
  Result<std::vector<LayerAt>> walk_down(LayerId top);
  std::shared_ptr<Layer> assemble(const NewLayer& layer, std::shared_ptr<Layer> base);
  void remember(const std::shared_ptr<Layer>& layer) EXCLUDES(mutex_);
  Result<std::shared_ptr<Layer>> get_locked(LayerId top) REQUIRES(loading_);
  std::shared_ptr<Layer> find_open(LayerId id) EXCLUDES(mutex_);
  Status release_base(catalog::WriteTxn& txn, LayerId base, LayerId child, std::vector<Released>& out);
  static void bury(catalog::WriteTxn& txn, LayerId id, const LayerRecord& record, std::vector<Released>& out);

  io::Storage& storage_;
  catalog::Catalog& catalog_;
  kms::KeyDirectory& keys_;
  const crypto::Key& root_;
  const Uuid store_;
  const crypto::Mac table_mac_;
  PageBudget budget_;
  formats::FormatReaders format_readers_;
  std::atomic<std::uint64_t> disowned_{0};
  Inodes* inodes_ = nullptr;

  Mutex loading_;  // held while a layer is opened; taken before mutex_
  mutable Mutex mutex_;
  std::unordered_map<LayerId, std::weak_ptr<Layer>> open_ GUARDED_BY(mutex_);
  std::list<std::shared_ptr<Layer>> recent_ GUARDED_BY(mutex_);  // keeps layers open; most recently used first
  Changed changed_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::blocks
