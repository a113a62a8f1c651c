#include "engine/check/record_check.h"

#include <algorithm>

#include "engine/types/attributes.h"
#include "engine/types/check_report.h"
#include "engine/types/image_state.h"

namespace rekeyfs::check {

using blocks::LayerRecord;
using catalog::Table;
using catalog::make_key;
using names::InodeRecord;

namespace {

constexpr mode_t kOwnerReads = 0400, kOwnerOnly = 0600;
constexpr std::string_view kLostAndFound = "lost+found";

std::string text_of(LayerId id) { return "layer " + std::to_string(id.value()); }
std::string text_of(Ino ino) { return "inode " + std::to_string(ino.value()); }

bool belongs_to(std::string_view key, Ino directory) {
  return Reader(key.substr(1)).get_be64() == directory.value();
}

}  // namespace

void RecordCheck::run() {
  check_layers();
  check_root();
  check_missing_inodes();
  check_images();
  check_owners();
  check_entries();
  check_reachable();
  check_replications();
  check_dependents();
  check_links();
}

// --- layers ----------------------------------------------------------------------------------------------------

void RecordCheck::check_layers() {
  const std::set<LayerId> garbage = records_.garbage;
  for (LayerId id : garbage) {
    if (!records_.layers.contains(id)) continue;
    findings_.add_record(text_of(id), "is in use and marked for removal", "the mark is removed");
    records_.erase_garbage(id);
  }
  check_layer_pairs();
  check_bases();
  check_children();
}

void RecordCheck::check_layer_pairs() {
  std::vector<LayerId> halves;
  for (const auto& [id, layer] : records_.layers)
    if (!records_.tables.contains(id)) halves.push_back(id);
  for (const auto& [id, table] : records_.tables)
    if (!records_.layers.contains(id)) halves.push_back(id);
  for (LayerId id : halves) {
    findings_.add_record(text_of(id), "one of its two records is missing", "its content is lost and is removed");
    records_.erase_layer(id);
  }
}

// A base must have a lower number than the layers above it.
void RecordCheck::check_bases() {
  const std::map<LayerId, LayerRecord> layers = records_.layers;
  for (const auto& [id, layer] : layers) {
    if (!layer.base || (records_.layers.contains(layer.base) && layer.base < id)) continue;
    findings_.add_record(text_of(id), "its base, " + text_of(layer.base) + ", is missing",
                         "its own blocks are kept; reads of the base's blocks fail with an I/O error");
    LayerRecord alone = layer;
    alone.take_base();
    records_.erase_child(layer.base, id);
    records_.put(id, alone);
  }
}

void RecordCheck::check_children() {
  const std::set<std::pair<LayerId, LayerId>> children = records_.children;
  for (const auto& [base, id] : children) {
    const auto layer = records_.layers.find(id);
    if (layer != records_.layers.end() && layer->second.base == base) continue;
    findings_.add_record(text_of(base), text_of(id) + " is recorded as its child and is not", "the record is removed");
    records_.erase_child(base, id);
  }
  for (const auto& [id, layer] : records_.layers) {
    if (!layer.base || records_.children.contains({layer.base, id})) continue;
    findings_.add_record(text_of(layer.base), text_of(id) + " is its child and is not recorded", "the record is added");
    records_.put_child(layer.base, id);
  }
}

// --- images and the layers they own ----------------------------------------------------------------------------

void RecordCheck::drop_image(Ino ino, const std::string& what) {
  findings_.add_record(records_.path_of(ino), what, "its content is lost and its name is removed; restore it from a copy");
  std::vector<std::string> gone;
  for (const auto& [key, entry] : records_.entries)
    if (entry.ino == ino) gone.push_back(key);
  for (const std::string& key : gone) records_.erase_entry(key);
  records_.erase(ino);
}

void RecordCheck::check_images() {
  const std::map<Ino, Inode> inodes = records_.inodes;
  for (const auto& [ino, inode] : inodes) {
    if (inode.kind != NodeKind::image) continue;
    const auto layer = records_.layers.find(inode.image.layer);
    if (layer == records_.layers.end()) {
      drop_image(ino, "the records of its " + text_of(inode.image.layer) + " are missing");
      continue;
    }
    const Ino owner = layer->second.owner;
    if (owner == ino) continue;
    const auto other = records_.inodes.find(owner);
    if (other != records_.inodes.end() && other->second.kind == NodeKind::image && other->second.image.layer == inode.image.layer) {
      drop_image(ino, text_of(inode.image.layer) + " is that of " + records_.path_of(owner));
      continue;
    }
    findings_.add_record(records_.path_of(ino), text_of(inode.image.layer) + " has another recorded owner", "the record is corrected");
    LayerRecord owned = layer->second;
    owned.owner = ino;
    records_.put(inode.image.layer, owned);
  }
}

void RecordCheck::check_owners() {
  // Youngest first, so that a base comes after its readers.
  std::vector<LayerId> ids;
  for (const auto& [id, layer] : records_.layers) ids.push_back(id);
  for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
    const LayerRecord layer = records_.layers.at(*id);
    const auto image = records_.inodes.find(layer.owner);
    const bool owned = layer.owner && image != records_.inodes.end() && image->second.kind == NodeKind::image && image->second.image.layer == *id;
    if (owned) continue;
    const auto child = records_.children.lower_bound({*id, LayerId{}});
    const bool needed = child != records_.children.end() && child->first == *id;
    if (!needed) {
      settle_unused_layer(*id);
    } else if (layer.owner) {
      findings_.add_record(text_of(*id), "its recorded owner does not use it", "it is kept for the layers that read from it");
      LayerRecord kept = layer;
      kept.owner = Ino{};
      records_.put(*id, kept);
    }
  }
}

// Handles a layer without readers. If it was the top layer of an image without records, the image is recreated.
void RecordCheck::settle_unused_layer(LayerId id) {
  const Ino owner = records_.layers.at(id).owner;
  if (!owner || records_.inodes.contains(owner) || records_.tables.at(id).size == 0) {
    findings_.add_record(text_of(id), "no image and no other layer uses it", "it is removed");
    records_.erase_layer(id);
    return;
  }
  const Ino directory = lost_and_found();
  const std::string name = "inode-" + std::to_string(owner.value());
  findings_.add_record("/" + std::string(kLostAndFound) + "/" + name, "the inode of an image with content is missing",
                       "an inode is created there, readable by its owner only");
  Inode inode = new_image(owner, id);
  inode.parent = directory;
  inode.name = name;
  records_.put(owner, inode);
  records_.put(Entry{directory, owner, NodeKind::image, name});
}

// --- inodes ----------------------------------------------------------------------------------------------------

RecordCheck::Inode RecordCheck::new_image(Ino ino, LayerId layer) const {
  Inode inode;
  inode.kind = NodeKind::image;
  inode.permissions = kOwnerOnly;
  inode.accessed = inode.modified = inode.changed = now();
  if (const auto root = records_.inodes.find(kRootIno); root != records_.inodes.end()) {
    inode.uid = root->second.uid;
    inode.gid = root->second.gid;
  }
  // Derived, not random: a second check must get the same id.
  const std::string number = Writer().put_raw(as_bytes("restored")).put(ino.value()).take();
  std::memcpy(inode.image.id.data(), number.data(), inode.image.id.size());
  inode.image.layer = layer;
  inode.image.state = records_.replications.contains(ino) ? ImageState::replicating : ImageState::normal_uninitialized;
  return inode;
}

// The directory's policy is lost. It gets the policy of the youngest encrypted image in it, and only root may create
// images until the owner has checked it.
RecordCheck::Inode RecordCheck::new_directory(Ino ino) const {
  Inode inode;
  inode.kind = NodeKind::directory;
  inode.permissions = kOwnerReads | 0100;
  inode.uid = geteuid();
  inode.gid = getegid();
  inode.links = 2;
  inode.accessed = inode.modified = inode.changed = now();
  const std::string prefix = make_key(Table::entry, ino.value());
  Ino youngest;
  for (auto at = records_.entries.lower_bound(prefix); at != records_.entries.end() && belongs_to(at->first, ino) && at->first[0] == prefix[0]; ++at) {
    const auto image = records_.inodes.find(at->second.ino);
    if (image == records_.inodes.end() || image->second.kind != NodeKind::image || image->first < youngest) continue;
    const auto layer = records_.layers.find(image->second.image.layer);
    if (layer == records_.layers.end() || !layer->second.key) continue;
    youngest = image->first;
    inode.policy.key = layer->second.key;
  }
  return inode;
}

void RecordCheck::check_root() {
  if (const auto root = records_.inodes.find(kRootIno); root != records_.inodes.end() && root->second.kind == NodeKind::directory) return;
  findings_.add_record("/", "its inode is missing", "it is recreated without write permission: check its policy, then restore the permission");
  Inode root = new_directory(kRootIno);
  root.parent = kRootIno;
  records_.put(kRootIno, root);
}

// Directories last, because their key is derived from the images in them.
void RecordCheck::check_missing_inodes() {
  const std::map<std::string, Entry> entries = records_.entries;
  for (const bool directories : {false, true})
    for (const auto& [key, entry] : entries)
      if ((entry.kind == NodeKind::directory) == directories && !records_.inodes.contains(entry.ino)) make_inode_anew(entry);
}

// Recreates an inode from its name and its layer or, for a directory, its entries. If that is impossible,
// check_entries() removes its names.
void RecordCheck::make_inode_anew(const Entry& named) {
  std::optional<Inode> inode;
  std::string remedy;
  if (named.kind == NodeKind::image) {
    for (const auto& [id, layer] : records_.layers)
      if (layer.owner == named.ino) inode = new_image(named.ino, id);  // the youngest one remains
    remedy = "it is recreated with its content, readable by its owner only";
  } else if (named.kind == NodeKind::directory) {
    const std::string prefix = make_key(Table::entry, named.ino.value());
    const auto first = records_.entries.lower_bound(prefix);
    if (first != records_.entries.end() && first->first.starts_with(prefix)) inode = new_directory(named.ino);
    remedy = "it is recreated without write permission: check its policy, then restore the permission";
  }
  if (!inode) return;
  inode->parent = named.parent;
  inode->name = named.name;
  if (const auto directory = records_.inodes.find(named.parent); directory != records_.inodes.end()) {
    inode->uid = directory->second.uid;
    inode->gid = directory->second.gid;
  }
  records_.put(named.ino, *inode);
  findings_.add_record(records_.path_of(named.ino), "its inode is missing", remedy);
}

// --- names -----------------------------------------------------------------------------------------------------

void RecordCheck::check_entries() {
  const std::map<std::string, Entry> entries = records_.entries;
  std::set<Ino> named_directories;
  for (const auto& [key, entry] : entries) {
    const auto inode = records_.inodes.find(entry.ino);
    const auto directory = records_.inodes.find(entry.parent);
    const std::string path = records_.path_of(entry.parent) + (entry.parent == kRootIno ? "" : "/") + entry.name;
    const bool is_directory = inode != records_.inodes.end() && inode->second.kind == NodeKind::directory;
    std::string what;
    if (inode == records_.inodes.end()) what = "the name refers to no inode";
    else if (directory == records_.inodes.end() || directory->second.kind != NodeKind::directory) what = "its parent directory is missing";
    else if (entry.ino == kRootIno) what = "the name refers to the root directory";
    else if (records_.entry_key(entry.parent, entry.name) != key) what = "the name is stored under the wrong key";
    else if (is_directory && !named_directories.insert(entry.ino).second) what = "it is a second name of a directory";
    if (!what.empty()) {
      findings_.add_record(path, what, "the name is removed");
      records_.erase_entry(key);
    } else if (inode->second.kind != entry.kind) {
      findings_.add_record(path, "its directory entry has the wrong type", "the entry is corrected");
      Entry right = entry;
      right.kind = inode->second.kind;
      records_.put(right);
    }
  }
}

std::multimap<Ino, const Entry*> RecordCheck::names() const {
  std::multimap<Ino, const Entry*> names;
  for (const auto& [key, entry] : records_.entries) names.emplace(entry.ino, &entry);
  return names;
}

std::set<Ino> RecordCheck::reached() const {
  std::multimap<Ino, Ino> below;
  for (const auto& [key, entry] : records_.entries) below.emplace(entry.parent, entry.ino);
  std::set<Ino> reached{kRootIno};
  for (std::vector<Ino> left{kRootIno}; !left.empty();) {
    const Ino directory = left.back();
    left.pop_back();
    const auto [first, last] = below.equal_range(directory);
    for (auto at = first; at != last; ++at)
      if (reached.insert(at->second).second) left.push_back(at->second);
  }
  return reached;
}

void RecordCheck::check_reachable() {
  const std::multimap<Ino, const Entry*> named = names();
  std::vector<Ino> nameless;
  for (const auto& [ino, inode] : records_.inodes)
    if (ino != kRootIno && !named.contains(ino) && !records_.orphans.contains(ino)) nameless.push_back(ino);
  for (Ino ino : nameless) reattach(ino);

  // The remaining ones are directories that contain each other.
  for (;;) {
    const std::set<Ino> seen = reached();
    const auto lost = std::find_if(records_.inodes.begin(), records_.inodes.end(), [&](const auto& one) {
      return one.second.kind == NodeKind::directory && !seen.contains(one.first);
    });
    if (lost == records_.inodes.end()) return;
    const Ino ino = lost->first;
    std::vector<std::string> keys;
    for (const auto& [key, entry] : records_.entries)
      if (entry.ino == ino) keys.push_back(key);
    for (const std::string& key : keys) records_.erase_entry(key);
    Inode inode = lost->second;
    inode.parent = Ino{};
    records_.put(ino, inode);
    reattach(ino);
  }
}

// Gives a name to a node that has none: its former one if it is free.
void RecordCheck::reattach(Ino ino) {
  Inode inode = records_.inodes.at(ino);
  const auto directory = records_.inodes.find(inode.parent);
  const bool has_place = directory != records_.inodes.end() && directory->second.kind == NodeKind::directory && inode.parent != ino &&
                         !inode.name.empty() && !records_.entries.contains(records_.entry_key(inode.parent, inode.name));
  if (has_place) {
    findings_.add_record(records_.path_of(ino), "its directory does not list it", "the entry is added");
    records_.put(Entry{inode.parent, ino, inode.kind, inode.name});
    return;
  }
  if (inode.kind == NodeKind::image && records_.tables.contains(inode.image.layer) && records_.tables.at(inode.image.layer).size == 0) {
    findings_.add_record(text_of(ino), "an image without name and content", "it is removed");
    records_.erase(ino);
    settle_unused_layer(inode.image.layer);
    return;
  }
  inode.parent = lost_and_found();
  inode.name = "inode-" + std::to_string(ino.value());
  findings_.add_record(text_of(ino), "no directory lists it", "it is moved to /" + std::string(kLostAndFound) + "/" + inode.name);
  records_.put(ino, inode);
  records_.put(Entry{inode.parent, ino, inode.kind, inode.name});
}

Ino RecordCheck::lost_and_found() {
  std::string name(kLostAndFound);
  const auto there = records_.entries.find(records_.entry_key(kRootIno, name));
  if (there != records_.entries.end()) {
    const auto inode = records_.inodes.find(there->second.ino);
    if (inode != records_.inodes.end() && inode->second.kind == NodeKind::directory) return there->second.ino;
    name += "-" + std::to_string(records_.inodes.rbegin()->first.value());
  }
  Inode inode;
  if (const auto root = records_.inodes.find(kRootIno); root != records_.inodes.end()) inode = root->second;
  inode.kind = NodeKind::directory;
  inode.permissions = 0700;
  inode.links = 2;
  inode.parent = kRootIno;
  inode.name = name;
  inode.accessed = inode.modified = inode.changed = now();
  const Ino ino = records_.new_ino();
  records_.put(ino, inode);
  records_.put(Entry{kRootIno, ino, NodeKind::directory, name});
  return ino;
}

// --- what depends on inodes ------------------------------------------------------------------------------------

void RecordCheck::check_replications() {
  const auto replications = records_.replications;
  for (const auto& [ino, replication] : replications) {
    const auto inode = records_.inodes.find(ino);
    if (inode != records_.inodes.end() && inode->second.kind == NodeKind::image) continue;
    findings_.add_record(text_of(ino), "a replication without an image", "its record is removed");
    records_.erase_replication(ino);
  }
  const std::map<Ino, Inode> inodes = records_.inodes;
  for (const auto& [ino, inode] : inodes) {
    if (inode.kind != NodeKind::image || records_.orphans.contains(ino)) continue;
    const auto layer = records_.layers.find(inode.image.layer);
    if (layer == records_.layers.end()) continue;
    const auto base = records_.layers.find(layer->second.base);
    const bool transforms = base != records_.layers.end() && layer->second.transforms(base->second);
    const bool replicates = inode.image.state == ImageState::replicating || inode.image.state == ImageState::error;
    const bool recorded = records_.replications.contains(ino);
    if (replicates == recorded && (!transforms || replicates)) continue;
    Inode right = inode;
    if (transforms || (replicates && !recorded && inode.image.lineage && inode.image.lineage->completed == 0)) {
      findings_.add_record(records_.path_of(ino), "its replication is recorded incompletely", "the replication is resumed");
      right.image.state = ImageState::replicating;
      right.image.error.clear();
      const Timestamp started = inode.image.lineage ? inode.image.lineage->replicated : now();
      if (!recorded) records_.put(ino, replication::ReplicationRecord{started, records_.path_of(ino), inode.uid});
    } else {
      findings_.add_record(records_.path_of(ino), "it is recorded as replicating and is complete", "the record is corrected");
      right.image.state = ImageState::normal_uninitialized;
      right.image.error.clear();
      if (recorded) records_.erase_replication(ino);
    }
    records_.put(ino, right);
  }
}

void RecordCheck::check_dependents() {
  const std::map<std::string, Ino> attributes = records_.attributes;
  for (const auto& [key, ino] : attributes) {
    if (records_.inodes.contains(ino)) continue;
    findings_.add_record(text_of(ino), "an extended attribute of a node that is missing", "it is removed");
    records_.erase_attribute(key);
  }
  const std::multimap<Ino, const Entry*> named = names();
  const std::set<Ino> orphans = records_.orphans;
  for (Ino ino : orphans) {
    const auto inode = records_.inodes.find(ino);
    const bool image = inode != records_.inodes.end() && inode->second.kind == NodeKind::image;
    if (image && !named.contains(ino)) continue;
    findings_.add_record(image ? records_.path_of(ino) : text_of(ino), "it is marked for deletion, and has a name or does not exist",
                         "the mark is removed");
    records_.erase_orphan(ino);
  }
  const std::set<LayerId> profiles = records_.profiles;
  for (LayerId id : profiles) {
    if (records_.layers.contains(id)) continue;
    findings_.add_record(text_of(id), "a boot profile of a layer that is missing", "it is removed");
    records_.erase_profile(id);
  }
  const std::set<Ino> rotations = records_.rotations;
  for (Ino ino : rotations) {
    const auto inode = records_.inodes.find(ino);
    if (inode != records_.inodes.end() && inode->second.kind == NodeKind::directory) continue;
    findings_.add_record(text_of(ino), "a rotation of a directory that is missing", "its record is removed");
    records_.erase_rotation(ino);
  }
  check_quotas();
}

// The directories that have a quota are listed, so that a mount finds them without reading all inodes.
void RecordCheck::check_quotas() {
  const std::set<Ino> listed = records_.quotas;
  for (Ino ino : listed) {
    const auto inode = records_.inodes.find(ino);
    if (inode != records_.inodes.end() && inode->second.quota.is_set()) continue;
    findings_.add_record(text_of(ino), "a quota is listed that the directory does not have", "the entry is removed");
    records_.erase_quota(ino);
  }
  for (const auto& [ino, inode] : records_.inodes) {
    if (!inode.quota.is_set() || listed.contains(ino)) continue;
    findings_.add_record(text_of(ino), "the directory's quota is not listed", "it is listed");
    records_.put_quota(ino);
  }
}

void RecordCheck::check_links() {
  std::map<Ino, std::uint32_t> links;
  for (const auto& [key, entry] : records_.entries) {
    if (entry.kind == NodeKind::directory) ++links[entry.parent];
    else ++links[entry.ino];
  }
  const std::multimap<Ino, const Entry*> named = names();
  const std::map<Ino, Inode> inodes = records_.inodes;
  for (const auto& [ino, inode] : inodes) {
    CheckReport& report = findings_.report;
    ++(inode.kind == NodeKind::directory ? report.directories : inode.kind == NodeKind::image ? report.images : report.links);
    Inode right = inode;
    right.links = links[ino] + (inode.kind == NodeKind::directory ? 2 : 0);
    const auto [first, last] = named.equal_range(ino);
    const bool placed = ino == kRootIno || first == last || std::any_of(first, last, [&recorded = inode](const auto& name) {
      return name.second->parent == recorded.parent && name.second->name == recorded.name;
    });
    if (!placed) {
      right.parent = first->second->parent;
      right.name = first->second->name;
    }
    if (placed && right.links == inode.links) continue;
    records_.put(ino, right);
    findings_.add_record(records_.path_of(ino), placed ? "its link count is " + std::to_string(inode.links) + " and should be " + std::to_string(right.links)
                                                       : "its inode names another parent directory",
                         "the inode is corrected");
  }
}

}  // namespace rekeyfs::check
