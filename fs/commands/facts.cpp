#include "fs/commands/facts.h"

#include <algorithm>
#include <cmath>

#include "engine/base/utf8.h"

namespace rekeyfs::fs {
using nlohmann::json;

namespace {

json permissions_text(mode_t permissions) {
  char octal[8];
  std::snprintf(octal, sizeof octal, "%04o", static_cast<unsigned>(permissions & 07777));
  return octal;
}

// In tenths of a percent, rounded down, so that unfinished work is never shown as 100 %.
double percent_of(const Replication& replication) {
  if (replication.bytes_total == 0) return 0;
  // No overflow: images are at most 16 TiB.
  std::uint64_t tenths = replication.bytes_done * 1000 / replication.bytes_total;
  return static_cast<double>(std::min<std::uint64_t>(tenths, 999)) / 10;
}

json seconds_left(const Replication& replication) {
  if (replication.state != ImageState::replicating || replication.bytes_per_second <= 0) return nullptr;
  std::uint64_t left = replication.bytes_total - std::min(replication.bytes_done, replication.bytes_total);
  return std::ceil(static_cast<double>(left) / replication.bytes_per_second);
}

json facts_of(const Origin& origin) {
  return {{"source", origin.source},
          {"key_before", text(origin.key_before)},
          {"replicated", time_text(origin.replicated)},
          {"completed", origin.completed == 0 ? json(nullptr) : json(time_text(origin.completed))}};
}

}  // namespace

json text(std::string_view bytes) {
  if (is_utf8(bytes)) return bytes;
  return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace));
}

std::string_view kind_text(NodeKind kind) {
  switch (kind) {
    case NodeKind::directory: return "directory";
    case NodeKind::image: return "image";
    case NodeKind::symlink: return "symlink";
  }
  return "unknown";
}

json facts_of(const Replication& replication) {
  return {{"path", text(replication.path)},
          {"source", text(replication.source)},
          {"key_before", text(replication.key_before)},
          {"key_after", text(replication.key_after)},
          {"state", name_of(replication.state)},
          {"error", text(replication.error)},
          {"bytes_total", replication.bytes_total},
          {"bytes_done", replication.bytes_done},
          {"percent", percent_of(replication)},
          {"bytes_per_second", replication.bytes_per_second},
          {"seconds_left", seconds_left(replication)},
          {"started", time_text(replication.started)}};
}

json facts_of(const Refusal& refusal) {
  return {{"time", time_text(refusal.time)}, {"path", text(refusal.path)},    {"source", text(refusal.source)},
          {"rule", text(refusal.rule)},      {"code", name_of(refusal.code)}, {"uid", refusal.uid},
          {"count", refusal.count}};
}

json facts_of(const Error& error) {
  return {{"code", name_of(error.code)}, {"message", text(describe(error))}};
}

json facts_of(const Event& event) {
  json seconds = event.nanoseconds == 0 ? json(nullptr) : json(static_cast<double>(event.nanoseconds) / 1e9);
  return {{"number", event.number},
          {"time", time_text(event.time)},
          {"kind", name_of(event.kind)},
          {"uid", event.uid},
          {"path", text(event.path)},
          {"source", text(event.source)},
          {"key", text(event.key.alias)},
          {"key_id", event.key.id},
          {"key_before", text(event.key_before.alias)},
          {"key_before_id", event.key_before.id},
          {"code", event.code ? json(name_of(*event.code)) : json(nullptr)},
          {"text", text(event.text)},
          {"bytes", event.bytes},
          {"seconds", std::move(seconds)},
          {"count", event.count},
          {"since", event.count > 1 ? json(time_text(event.since)) : json(nullptr)}};
}

json facts_of(const KeyFacts& key) {
  json facts{{"id", key.id},           {"alias", text(key.alias)}, {"state", key.state},
             {"version", key.version}, {"oldest_version", key.oldest}, {"owner", key.owner},
             {"created", time_text(key.created)}, {"grantees", key.grantees}, {"declassifiers", key.declassifiers}};
  facts["deletion"] = key.deletion == 0 ? json(nullptr) : json(time_text(key.deletion));
  if (!key.warning.empty()) facts["warning"] = text(key.warning);
  return facts;
}

json facts_of(const LayerInfo& layer) {
  return {{"id", layer.id.value()}, {"key", text(layer.key)},
          {"key_id", layer.key_id}, {"key_version", layer.key_version},
          {"suite", layer.suite},   {"block_size", layer.block_size},
          {"stored", layer.stored}};
}

json summary_of(const BootReads& boot) { return {{"recorded", time_text(boot.recorded)}, {"bytes", boot.bytes}}; }

// Offsets and sizes only, because there may be thousands.
json facts_of(const BootReads& boot) {
  json facts = summary_of(boot);
  for (const BootReads::Range& range : boot.ranges) facts["ranges"].push_back({range.offset, range.size});
  return facts;
}

namespace {

json object_of(const std::vector<Xattr>& attributes) {
  json object = json::object();
  for (const Xattr& attribute : attributes)
    object[text(attribute.name).get_ref<const std::string&>()] = text(attribute.value);
  return object;
}

}  // namespace

json stat_facts_of(const NodeInfo& info) {
  const Attributes& attributes = info.attributes;
  return {{"path", text(info.path)},
          {"kind", kind_text(attributes.kind)},
          {"ino", attributes.ino.value()},
          {"permissions", permissions_text(attributes.permissions)},
          {"links", attributes.links},
          {"uid", attributes.uid},
          {"gid", attributes.gid},
          {"size", attributes.size},
          {"accessed", time_text(attributes.accessed)},
          {"modified", time_text(attributes.modified)},
          {"changed", time_text(attributes.changed)}};
}

json facts_of(const QuotaState& quota) {
  const auto limit = [](std::uint64_t most) { return most == 0 ? json(nullptr) : json(most); };
  return {{"bytes", quota.bytes},
          {"images", quota.images},
          {"most_bytes", limit(quota.most_bytes)},
          {"most_images", limit(quota.most_images)}};
}

json content_facts_of(const NodeInfo& info) {
  json keys = json::array();
  for (const KeyNeed& need : info.keys_needed) keys.push_back({{"key", text(need.key)}, {"until", need.until}});
  return {{"attributes", object_of(info.ours)},
          {"user_attributes", object_of(info.others)},
          {"lineage", info.origin ? facts_of(*info.origin) : json(nullptr)},
          {"layers", array_of(info.layers)},
          {"keys_needed", std::move(keys)}};
}

}  // namespace rekeyfs::fs
