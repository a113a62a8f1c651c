#include "engine/check/records.h"

#include "engine/audit/event_chain.h"
#include "engine/audit/event_record.h"
#include "engine/boot/boot_profile.h"
#include "engine/namespace/attribute_record.h"

namespace rekeyfs::check {

using catalog::Table;
using catalog::make_key;

namespace {

constexpr std::size_t kNumberKey = 9;         // letter, number
constexpr std::size_t kPairKey = 17;          // letter, number, number
constexpr std::size_t kHashKey = 9 + 16;      // letter, number, hash
constexpr std::size_t kRotationRecord = 20;   // key id, user
constexpr std::size_t kTwoTimes = 16;

std::uint64_t first_of(std::string_view key) { return Reader(key.substr(1)).get_be64(); }
std::uint64_t second_of(std::string_view key) { return Reader(key.substr(9)).get_be64(); }

std::size_t key_size_of(Table table) {
  switch (table) {
    case Table::super:
    case Table::event_head:
    case Table::clock: return 1;
    case Table::entry:
    case Table::attribute: return kHashKey;
    case Table::child:
    case Table::master_key:
    case Table::deletion: return kPairKey;
    default: return kNumberKey;
  }
}

bool is_known(char letter) { return std::string_view("ESIDXOLTCGPRKWAVHQYU").find(letter) != std::string_view::npos; }

std::string name_of_record(std::string_view key) {
  std::string text = "record " + std::string(key.substr(0, 1));
  if (key.size() >= kNumberKey) text += " " + std::to_string(first_of(key));
  return text;
}

}  // namespace

Result<Records> Records::load(catalog::Catalog& catalog, const names::Tree& tree, Findings& findings) {
  Records records(catalog, tree);
  std::vector<std::string> bad;
  std::uint64_t seen = 0;
  Status later;  // aborts the check: records that refer to one of an unknown layout would look damaged
  RK_TRY(catalog.scan("", "", [&](std::string_view key, std::string_view value) {
    if (++seen % 4096 == 0) findings.progress("records", seen, 0);
    if (const Status decoded = records.decode(key, value); !decoded) {
      if (decoded.error().code == Errc::wrong_version) {
        later = decoded;
        return false;
      }
      findings.add_record("", name_of_record(key) + ": " + decoded.error().message, "the record is dropped");
      bad.emplace_back(key);
    }
    return true;
  }));
  RK_TRY(later);
  for (const std::string& key : bad) records.change(key, std::nullopt);
  if (records.unknown > 0)
    findings.report.unverified.push_back({"catalog", std::to_string(records.unknown) + " records are of kinds that this rekeyfs does not know"});
  return records;
}

Status Records::decode(std::string_view key, std::string_view value) {
  const Table table = static_cast<Table>(key[0]);
  if (!is_known(key[0])) {  // authentic, as every record, so from a later version
    ++unknown;
    return {};
  }
  if (key.size() != key_size_of(table)) return fail(Errc::corrupt, "its key is of an unknown kind");
  const Ino ino{key.size() >= kNumberKey ? first_of(key) : 0};
  const LayerId layer{ino.value()};
  switch (table) {
    case Table::inode: {
      RK_TRY_ASSIGN(names::InodeRecord inode, names::InodeRecord::decode(value));
      inodes.emplace(ino, std::move(inode));
      break;
    }
    case Table::entry: {
      RK_TRY_ASSIGN(names::EntryRecord entry, names::EntryRecord::decode(value));
      entries.emplace(std::string(key), Entry{Ino{first_of(key)}, entry.ino, entry.kind, std::move(entry.name)});
      break;
    }
    case Table::attribute:
      RK_TRY(names::AttributeRecord::decode(value));
      attributes.emplace(std::string(key), ino);
      break;
    case Table::layer: {
      RK_TRY_ASSIGN(blocks::LayerRecord record, blocks::LayerRecord::decode(value));
      layers.emplace(layer, std::move(record));
      break;
    }
    case Table::layer_table: {
      RK_TRY_ASSIGN(const blocks::LayerTableRecord record, blocks::LayerTableRecord::decode(value));
      tables.emplace(layer, record);
      break;
    }
    case Table::replication: {
      RK_TRY_ASSIGN(replication::ReplicationRecord record, replication::ReplicationRecord::decode(value));
      replications.emplace(ino, std::move(record));
      break;
    }
    case Table::profile:
      RK_TRY(boot::BootProfile::decode(value));
      profiles.insert(layer);
      break;
    case Table::audit: RK_TRY(audit::decode(ino.value(), value)); break;
    case Table::event: {
      RK_TRY_ASSIGN(const audit::ChainedRecord record, audit::ChainedRecord::decode(value));
      RK_TRY(audit::decode_body(ino.value(), record.body));
      break;
    }
    case Table::event_head: RK_TRY(audit::ChainHead::decode(value)); break;
    case Table::rotation:
      if (value.size() != kRotationRecord) return fail(Errc::corrupt, "a rotation's record is malformed");
      rotations.insert(ino);
      break;
    case Table::clock:
    case Table::deletion:
      if (value.size() != kTwoTimes) return fail(Errc::corrupt, "a record of times is malformed");
      break;
    case Table::child: children.emplace(layer, LayerId{second_of(key)}); break;
    case Table::garbage: garbage.insert(layer); break;
    case Table::orphan: orphans.insert(ino); break;
    case Table::quota: quotas.insert(ino); break;
    case Table::epoch:
    case Table::super:
    case Table::master_key: break;  // verified when the catalog and the key directory are opened
  }
  return {};
}

void Records::change(const std::string& key, const std::optional<std::string>& value) {
  catalog::Op op;
  op.kind = value ? catalog::Op::Kind::put : catalog::Op::Kind::erase;
  op.key = key;
  op.value = value.value_or("");
  catalog_->recover_op(op);
}

void Records::put(Ino ino, const names::InodeRecord& inode) {
  change(make_key(Table::inode, ino.value()), inode.encode());
  inodes.insert_or_assign(ino, inode);
}
void Records::put(LayerId id, const blocks::LayerRecord& layer) {
  change(make_key(Table::layer, id.value()), layer.encode());
  layers.insert_or_assign(id, layer);
}
void Records::put(Ino ino, const replication::ReplicationRecord& replication) {
  change(make_key(Table::replication, ino.value()), replication.encode());
  replications.insert_or_assign(ino, replication);
}
void Records::put(const Entry& entry) {
  const std::string key = entry_key(entry.parent, entry.name);
  change(key, names::EntryRecord{entry.name, entry.ino, entry.kind}.encode());
  entries.insert_or_assign(key, entry);
}
void Records::put_child(LayerId base, LayerId layer) {
  change(make_key(Table::child, base.value(), layer.value()), "");
  children.emplace(base, layer);
}

void Records::erase(Ino ino) {
  const std::string prefix = make_key(Table::attribute, ino.value());
  while (true) {
    const auto found = attributes.lower_bound(prefix);
    if (found == attributes.end() || found->second != ino) break;
    erase_attribute(found->first);
  }
  if (orphans.contains(ino)) erase_orphan(ino);
  if (rotations.contains(ino)) erase_rotation(ino);
  if (quotas.contains(ino)) erase_quota(ino);
  if (replications.contains(ino)) erase_replication(ino);
  change(make_key(Table::inode, ino.value()), std::nullopt);
  inodes.erase(ino);
}
void Records::erase_entry(const std::string& key) {
  const std::string gone = key;  // a copy, because `key` may be owned by the map
  change(gone, std::nullopt);
  entries.erase(gone);
}
void Records::erase_attribute(const std::string& key) {
  const std::string gone = key;
  change(gone, std::nullopt);
  attributes.erase(gone);
}
void Records::erase_layer(LayerId id) {
  if (const auto found = layers.find(id); found != layers.end()) {
    if (found->second.base) erase_child(found->second.base, id);
    change(make_key(Table::layer, id.value()), std::nullopt);
    layers.erase(found);
  }
  if (tables.erase(id) > 0) change(make_key(Table::layer_table, id.value()), std::nullopt);
  if (profiles.contains(id)) erase_profile(id);
  change(make_key(Table::garbage, id.value()), "");
  garbage.insert(id);
}
void Records::erase_child(LayerId base, LayerId layer) {
  if (children.erase({base, layer}) > 0) change(make_key(Table::child, base.value(), layer.value()), std::nullopt);
}
void Records::erase_garbage(LayerId id) {
  change(make_key(Table::garbage, id.value()), std::nullopt);
  garbage.erase(id);
}
void Records::erase_profile(LayerId id) {
  change(make_key(Table::profile, id.value()), std::nullopt);
  profiles.erase(id);
}
void Records::restart_log(std::uint64_t newest) {
  change(make_key(Table::event_head), audit::ChainHead::starting_at(newest + 1).encode());
}
void Records::erase_replication(Ino ino) {
  change(make_key(Table::replication, ino.value()), std::nullopt);
  replications.erase(ino);
}
void Records::erase_orphan(Ino ino) {
  change(make_key(Table::orphan, ino.value()), std::nullopt);
  orphans.erase(ino);
}
void Records::erase_rotation(Ino ino) {
  change(make_key(Table::rotation, ino.value()), std::nullopt);
  rotations.erase(ino);
}

void Records::put_quota(Ino directory) {
  change(make_key(Table::quota, directory.value()), "");
  quotas.insert(directory);
}
void Records::erase_quota(Ino directory) {
  change(make_key(Table::quota, directory.value()), std::nullopt);
  quotas.erase(directory);
}

Ino Records::new_ino() {
  catalog::WriteTxn txn(*catalog_);  // only to assign the number
  return txn.new_ino();
}

std::string Records::path_of(Ino ino) const {
  std::string path;
  for (std::size_t depth = 0; ino != kRootIno && depth < 4096; ++depth) {
    const auto found = inodes.find(ino);
    if (found == inodes.end()) return "?" + path;
    path = "/" + found->second.name + path;
    ino = found->second.parent;
  }
  return path.empty() ? "/" : path;
}

std::optional<Ino> Records::user_of(LayerId id) const {
  for (std::size_t depth = 0; depth <= layers.size(); ++depth) {
    const auto found = layers.find(id);
    if (found == layers.end()) return std::nullopt;
    if (found->second.owner) return found->second.owner;
    const auto child = children.lower_bound({id, LayerId{}});
    if (child == children.end() || child->first != id) return std::nullopt;
    id = child->second;
  }
  return std::nullopt;
}

}  // namespace rekeyfs::check
