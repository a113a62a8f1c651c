// LayerRegistry: makes, opens and forgets layers; one Layer object per layer at any time.
//
// Thread-safe. make() and rewrap() ask the key service: they are not for inside a WriteTxn or under a lock. put(),
// put_rewrapped(), release() and detach() are for inside a WriteTxn.
#pragma once

#include <list>
#include <map>
#include <unordered_map>

#include "engine/blocks/layer.h"
#include "engine/kms/key_directory.h"

namespace rekeyfs::blocks {

class LayerRegistry final : public LayerObserver {
 public:
  // All outlive it.
  static Result<std::unique_ptr<LayerRegistry>> create(io::Storage& storage, catalog::Catalog& catalog, kms::KeyDirectory& keys,
                                                       const crypto::Key& root, const Uuid& store);

  // Who is told what changes mean to inodes; outlives all changes that mean something. Before the first of them.
  void set_inodes(Inodes* inodes) { inodes_ = inodes; }

  Result<std::shared_ptr<Layer>> get(LayerId id);

  // A layer that is not on record yet.
  struct NewLayer {
    LayerId id;
    LayerRecord record;
    LayerTableRecord table;

    // `from_base`: all content up to `size` is the base's; else it is a hole. `format` and `disk_size` as in a LayerRecord.
    void place_over(LayerId base, std::uint64_t size, bool from_base, formats::Format format = formats::Format::raw,
                    std::uint64_t disk_size = 0);
  };
  // Draws the number and the data key of an empty layer without a base or an owner. No key: plain. The key service is
  // asked: not for inside a transaction or under a lock.
  Result<NewLayer> draw(const std::optional<kms::KeyId>& key);
  // The layer itself, before it is on record: what follows the commit must not fail. It holds its base. If its record is
  // not put, the caller lets go of it and nothing is left.
  Result<std::shared_ptr<Layer>> open_new(const NewLayer& layer);
  // Puts the records of a new layer into the transaction.
  static void put(catalog::WriteTxn& txn, const NewLayer& layer);
  // The image that owned the layer does not need it any more. Puts its records, and those of bases that nobody needs
  // then, into the transaction: a layer that others read from stays without an owner, the rest becomes garbage.
  struct Released {
    LayerId layer;
    LayerId base;  // that it read from
  };
  Result<std::vector<Released>> release(catalog::WriteTxn& txn, LayerId id);
  // The layer stays, for a younger one over it that takes its place.
  Status disown(catalog::WriteTxn& txn, LayerId id) const;
  // The layer's content is all its own: puts the records that say so. The base may become garbage.
  Result<std::vector<Released>> detach(catalog::WriteTxn& txn, LayerId id);
  // After the commit: deleted layers are not flushed any more, and their bases may change; their files go with the next
  // checkpoint.
  void forget(const std::vector<Released>& released);

  // Open layers let go of their data keys and of what was made from them, if `key` wraps them. The images whose content is
  // read through such a layer, all that are open among them.
  std::vector<Ino> forget_keys_of(const kms::KeyId& key);

  // Lets go of every layer object; none may be in use or changed.
  void close_all();

  // Bytes of content and bytes stored, without opening the layer.
  struct Sizes {
    std::uint64_t content, stored;
  };
  Result<Sizes> sizes_of(LayerId id);

  using Changed = std::map<LayerId, std::shared_ptr<Layer>>;
  Changed take_changed();           // since the last call
  void put_back(Changed& changed);  // they still are; takes no memory
  void layer_changed(LayerId layer) override;
  Status touch(catalog::WriteTxn& txn, const Touch& touch) override;
  bool has_changed() const;
  BlockStore::Pressure pressure() const;  // of all together
  PageBudget& page_budget() { return budget_; }  // of the tables of all layers

  Result<LayerRecord> record_of(LayerId id) const;
  struct Base {
    LayerId id;                   // 0: there is none
    bool is_transformed = false;  // else the layer above is a clone of it
  };
  Result<Base> base_of(LayerId id) const;
  // Layers whose base is `id`.
  Result<std::vector<LayerId>> children_of(LayerId id) const;

  // A data key that was wrapped anew. Its layer's blocks stay.
  struct Rewrapped {
    LayerId layer;
    kms::WrappedKey before, after;
  };
  // Wraps the layer's data key with the newest version of its master key. Nothing if that wrapped it already, or the layer
  // is gone.
  Result<std::optional<Rewrapped>> rewrap(LayerId id) const;
  // Puts the layer's record with the new wrapping into the transaction, if it still has the old one.
  Status put_rewrapped(catalog::WriteTxn& txn, const Rewrapped& rewrapped) const;

 private:
  LayerRegistry(io::Storage& storage, catalog::Catalog& catalog, kms::KeyDirectory& keys, const crypto::Key& root,
                const Uuid& store, crypto::Mac table_mac)
      : storage_(storage), catalog_(catalog), keys_(keys), root_(root), store_(store), table_mac_(std::move(table_mac)) {}
  Result<crypto::Key> data_key_of(LayerId id, const LayerRecord& record) const;
  Result<crypto::Key> current_data_key_of(LayerId id, const LayerRecord& made_as) const;
  std::string wrap_context(LayerId id) const;
  Result<NewLayer> load(LayerId id) const;
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
  Inodes* inodes_ = nullptr;

  Mutex loading_;  // taken before mutex_; held while a layer is opened
  mutable Mutex mutex_;
  std::unordered_map<LayerId, std::weak_ptr<Layer>> open_ GUARDED_BY(mutex_);
  std::list<std::shared_ptr<Layer>> recent_ GUARDED_BY(mutex_);  // kept open, latest first
  Changed changed_ GUARDED_BY(mutex_);
};

}  // namespace rekeyfs::blocks
