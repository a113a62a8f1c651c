#include "engine/services/report_service.h"

#include <algorithm>

#include "engine/replication/replication_record.h"
#include "engine/types/attributes.h"
#include "engine/types/image_state.h"

namespace rekeyfs::services {

using names::InodeRecord;
using names::Tree;

namespace {

constexpr std::size_t kMaxRefusals = 64;  // maximum number shown by status

std::string_view name_of(crypto::Suite suite) {
  switch (suite) {
    case crypto::Suite::aes_256_gcm: return "aes-256-gcm";
    case crypto::Suite::chacha20_poly1305: return "chacha20-poly1305";
    case crypto::Suite::plain_gmac: return "plain";
  }
  return "unknown";
}

bool is_below(const Tree& tree, Ino node, Ino ancestor) {
  for (int depth = 0; depth < 4096; ++depth) {
    if (node == ancestor) return true;
    if (node == kRootIno) return false;
    const auto inode = tree.get(node);
    if (!inode) return false;
    node = inode->parent;
  }
  return false;
}

}  // namespace

Result<Space> ReportService::space() {
  RK_TRY_ASSIGN(const io::Space space, store_.storage().space());
  return Space{space.total, space.available, store_.catalog().nodes()};
}

Result<Space> ReportService::space_at(Ino node) {
  RK_TRY_ASSIGN(Space space, this->space());
  RK_TRY_ASSIGN(const quota::QuotaBook::Room room, quotas_.room_at(node));
  if (room.bytes) {
    space.total = room.bytes->limit;
    space.available = std::min(space.available, room.bytes->left);
  }
  if (room.images) {
    space.nodes = room.images->limit - room.images->left;
    space.nodes_left = room.images->left;
  }
  return space;
}

Result<std::optional<QuotaState>> ReportService::quota(Ino node) {
  RK_TRY_ASSIGN(const auto standing, quotas_.standing_of(node));
  if (!standing) return std::optional<QuotaState>{};
  return std::optional(QuotaState{standing->limits.bytes, standing->limits.images, standing->used.bytes, standing->used.images});
}

Result<NodeInfo> ReportService::info(Ino ino) {
  NodeInfo info;
  RK_TRY_ASSIGN(info.attributes, names_.getattr(ino));
  info.path = tree_.path_of(ino);
  for (const std::string& name : xattrs_.names_with_values(ino)) {
    const auto value = names_.getxattr(ino, name);
    if (value) info.ours.push_back({name, *value});
  }
  RK_TRY_ASSIGN(const std::vector<std::string> listed, names_.listxattr(ino));
  for (const std::string& name : listed) {
    const auto value = names_.getxattr(ino, name);
    if (value) info.others.push_back({name, *value});
  }
  if (info.attributes.kind != NodeKind::image) return info;
  RK_TRY(describe_layers(ino, info));
  return info;
}

Status ReportService::describe_layers(Ino ino, NodeInfo& info) {
  RK_TRY_ASSIGN(const InodeRecord inode, tree_.get(ino));
  if (const auto& lineage = inode.image.lineage)
    info.origin = Origin{to_uuid_text(lineage->source), alias_of(lineage->key_before), lineage->replicated, lineage->completed};
  RK_TRY_ASSIGN(const auto chain, tree_.look_at(ino, [&](const InodeRecord& now) { return store_.layers().chain_of(now.image.layer); }));
  for (const auto& at : chain) {
    LayerInfo layer;
    layer.id = at.id;
    layer.key = alias_of(at.record.key);
    layer.key_id = at.record.key ? to_hex(*at.record.key) : "";
    layer.key_version = at.record.data_key.version;
    layer.suite = name_of(at.record.suite);
    layer.block_size = 1u << at.record.block_shift;
    layer.stored = at.sizes.stored;
    const auto is_it = [&](const KeyNeed& need) { return need.key == layer.key; };
    if (!layer.key.empty() && std::none_of(info.keys_needed.begin(), info.keys_needed.end(), is_it))
      info.keys_needed.push_back({layer.key, info.layers.empty() ? "until it is deleted" : key_uses_.until_replicated(ino)});
    info.layers.push_back(std::move(layer));
  }
  return {};
}

Result<std::vector<Replication>> ReportService::replications(Ino under) {
  std::vector<Replication> all;
  for (const auto& job : filler_.progress()) {
    const auto inode = tree_.get(job.ino);
    if (!inode || !is_below(tree_, job.ino, under)) continue;
    Replication one;
    one.ino = job.ino;
    one.path = tree_.path_of(job.ino);
    one.state = job.error.empty() ? ImageState::replicating : ImageState::error;
    one.error = job.error;
    one.bytes_total = job.total;
    one.bytes_done = job.done;
    one.bytes_per_second = job.rate;
    one.key_after = alias_of(store_.layers().record_of(inode->image.layer));
    if (inode->image.lineage) one.key_before = alias_of(inode->image.lineage->key_before);
    const auto bytes = store_.catalog().get(catalog::make_key(catalog::Table::replication, job.ino.value()));
    if (!bytes || !*bytes) continue;  // the image has just become normal
    RK_TRY_ASSIGN(const auto record, replication::ReplicationRecord::decode(**bytes));
    one.source = record.source;
    one.started = record.started;
    all.push_back(std::move(one));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  return all;
}

std::vector<Refusal> ReportService::refusals() {
  EventQuery query;
  query.kind = EventKind::refused;
  query.most = kMaxRefusals;
  std::vector<Refusal> latest;
  const auto found = audit_.find(query);
  if (!found) return latest;
  for (auto event = found->rbegin(); event != found->rend(); ++event)
    latest.push_back({event->time, event->path, event->source, event->text, event->code.value_or(Errc::invalid), event->uid, event->count});
  return latest;
}

std::string ReportService::alias_of(const std::optional<kms::KeyId>& key) {
  if (!key) return "";
  const auto info = store_.keys().find(*key);
  return info ? info->alias : to_hex(*key);
}

}  // namespace rekeyfs::services
