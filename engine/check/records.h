// Records: all name and layer records of a catalog in decoded form, for the check.
//
// Changes apply to the catalog's memory immediately, as in recovery, and become durable only through a checkpoint; a
// check and a repair therefore see the same records. Memory grows with the number of names and layers. Single-threaded.
#pragma once

#include <map>
#include <set>
#include <string>

#include "engine/blocks/layer_record.h"
#include "engine/catalog/catalog.h"
#include "engine/check/findings.h"
#include "engine/namespace/inode_record.h"
#include "engine/namespace/tree.h"
#include "engine/replication/replication_record.h"
#include "engine/types/attributes.h"

namespace rekeyfs::check {

struct Entry {
  Ino parent, ino;
  NodeKind kind = NodeKind::image;
  std::string name;
};

class Records {
 public:
  // Records that cannot be decoded are reported and dropped, also from the catalog's memory. Errc::wrong_version for a
  // record whose layout only a later version knows, because nothing can be checked without it.
  static Result<Records> load(catalog::Catalog& catalog, const names::Tree& tree, Findings& findings);

  std::map<Ino, names::InodeRecord> inodes;
  std::map<std::string, Entry> entries;          // key: catalog key
  std::map<std::string, Ino> attributes;         // key: catalog key
  std::map<LayerId, blocks::LayerRecord> layers;
  std::map<LayerId, blocks::LayerTableRecord> tables;
  std::set<std::pair<LayerId, LayerId>> children;  // base, layer
  std::set<LayerId> garbage, profiles;
  std::map<Ino, replication::ReplicationRecord> replications;
  std::set<Ino> orphans, rotations, quotas;
  std::uint64_t unknown = 0;  // records in tables that this program does not know; they are kept

  void put(Ino ino, const names::InodeRecord& inode);
  void put(LayerId id, const blocks::LayerRecord& layer);
  void put(Ino ino, const replication::ReplicationRecord& replication);
  void put(const Entry& entry);
  void put_child(LayerId base, LayerId layer);
  void erase(Ino ino);  // erases the inode, its attributes and records that depend on it, but not its names
  void erase_entry(const std::string& key);
  void erase_attribute(const std::string& key);
  void erase_layer(LayerId id);  // erases its records, including its entry as a child; its files become garbage
  void erase_child(LayerId base, LayerId layer);
  void erase_garbage(LayerId id);
  void erase_profile(LayerId id);
  void erase_replication(Ino ino);
  void erase_orphan(Ino ino);
  void erase_rotation(Ino ino);
  void put_quota(Ino directory);
  void erase_quota(Ino directory);

  // Begins a new chain of the audit log behind the event `newest`.
  void restart_log(std::uint64_t newest);

  Ino new_ino();
  std::string path_of(Ino ino) const;  // "?" for unknown parts
  std::string entry_key(Ino parent, std::string_view name) const { return tree_->entry_key(parent, name); }
  // An image whose content needs the layer, as its top or below it.
  std::optional<Ino> user_of(LayerId id) const;

 private:
  Records(catalog::Catalog& catalog, const names::Tree& tree) : catalog_(&catalog), tree_(&tree) {}
  Status decode(std::string_view key, std::string_view value);
  void change(const std::string& key, const std::optional<std::string>& value);

  catalog::Catalog* catalog_;
  const names::Tree* tree_;
};

}  // namespace rekeyfs::check
