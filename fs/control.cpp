#include "fs/control.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

#include "engine/base/utf8.h"

namespace rekeyfs::fs {
namespace {

using nlohmann::json;

struct Call {
  Engine& engine;
  const Caller& caller;
  Ino directory;  // or the image, if `file` is set
  const json& request;
  OpenFile* file;
};

// Text chosen by users (names, attribute values) may be any bytes, but JSON must be UTF-8.
json text(std::string_view bytes) {
  if (is_utf8(bytes)) return bytes;
  return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace));
}

json permissions_text(mode_t permissions) {
  char octal[8];
  std::snprintf(octal, sizeof octal, "%04o", static_cast<unsigned>(permissions & 07777));
  return octal;
}

std::string_view kind_text(NodeKind kind) {
  switch (kind) {
    case NodeKind::directory:
      return "directory";
    case NodeKind::image:
      return "image";
    case NodeKind::symlink:
      return "symlink";
  }
  return "unknown";
}

bool at_or_below(std::string_view path, std::string_view directory) {
  if (directory == "/" || path == directory) return true;
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

Result<std::string> from_hex(std::string_view hex) {
  std::string bytes;
  if (hex.size() % 2 != 0) return fail(Errc::invalid, "name_hex has an odd number of digits");
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);
    if (high < 0 || low < 0) return fail(Errc::invalid, "name_hex is not made of the digits 0-9 and a-f");
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

Result<std::string> required_text(const Call& call, const char* member) {
  auto found = call.request.find(member);
  if (found == call.request.end() || !found->is_string() || found->get_ref<const std::string&>().empty())
    return fail(Errc::invalid, "the command needs the string \"" + std::string(member) + "\"");
  return found->get<std::string>();
}

Result<std::uint64_t> number_or(const Call& call, const char* member, std::uint64_t otherwise) {
  auto found = call.request.find(member);
  if (found == call.request.end()) return otherwise;
  if (!found->is_number_integer() || *found < 0) return fail(Errc::invalid, "\"" + std::string(member) + "\" must be a non-negative integer");
  return found->get<std::uint64_t>();
}

Result<std::optional<std::string>> requested_name(const Call& call) {
  std::optional<std::string> name;
  if (call.request.contains("name_hex")) {
    RK_TRY_ASSIGN(std::string hex, required_text(call, "name_hex"));
    RK_TRY_ASSIGN(name, from_hex(hex));
  } else if (call.request.contains("name")) {
    RK_TRY_ASSIGN(name, required_text(call, "name"));
  }
  if (name &&
      (*name == "." || *name == ".." || name->find('/') != std::string::npos || name->find('\0') != std::string::npos))
    return fail(Errc::invalid, "\"name\" must be a single name, without '/'");
  return name;
}

Result<Attributes> requested_node(const Call& call) {
  RK_TRY_ASSIGN(std::optional<std::string> name, requested_name(call));
  return name ? call.engine.names().lookup(call.directory, *name) : call.engine.names().getattr(call.directory);
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
          {"rule", text(refusal.rule)},      {"code", name_of(refusal.code)}, {"uid", refusal.uid}};
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
          {"seconds", std::move(seconds)}};
}

json facts_of(const KeyFacts& key) {
  json facts{{"id", key.id},           {"alias", text(key.alias)}, {"state", key.state},
             {"version", key.version}, {"oldest_version", key.oldest}, {"owner", key.owner},
             {"created", time_text(key.created)}, {"grantees", key.grantees}};
  facts["deletion"] = key.deletion == 0 ? json(nullptr) : json(time_text(key.deletion));
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

template <typename Range>
json array_of(const Range& range) {
  json array = json::array();
  for (const auto& item : range) array.push_back(facts_of(item));
  return array;
}

json object_of(const std::vector<Xattr>& attributes) {
  json object = json::object();
  for (const Xattr& attribute : attributes)
    object[text(attribute.name).get_ref<const std::string&>()] = text(attribute.value);
  return object;
}

Result<json> session(const Call& call) {
  return json{{"pid", getpid()}, {"store", text(call.engine.store_path())}, {"version", REKEYFS_VERSION}};
}

Result<json> sync(const Call& call) {
  RK_TRY(call.engine.sync_all());
  return json::object();
}

Result<json> progress_of(const Call& call, const Attributes& node) {
  RK_TRY_ASSIGN(std::vector<Replication> replications, call.engine.reports().replications(node.ino));
  const Status background = call.engine.reports().background();
  json answer{{"kind", kind_text(node.kind)},
              {"replications", array_of(replications)},
              {"stopped", background ? json(nullptr) : text(describe(background.error()))}};
  if (node.kind == NodeKind::image) {
    RK_TRY_ASSIGN(std::string status, call.engine.names().getxattr(node.ino, "user.rekeyfs.status"));
    answer["status"] = std::move(status);
  }
  return answer;
}

Result<json> progress(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  return progress_of(call, node);
}

json read_only_of(const Call& call) {
  const Status health = call.engine.reports().health();
  return health ? json(nullptr) : text(describe(health.error()));
}

Result<json> status(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  const std::string path = call.engine.names().path_of(node.ino);
  RK_TRY_ASSIGN(json answer, progress_of(call, node));
  answer["path"] = text(path);
  std::vector<Refusal> refusals = call.engine.reports().refusals();
  std::erase_if(refusals, [&](const Refusal& refusal) { return !at_or_below(refusal.path, path); });
  answer["refusals"] = array_of(refusals);
  answer["read_only"] = read_only_of(call);
  return answer;
}

Result<json> state(const Call& call) {
  RK_TRY_ASSIGN(std::string path, required_text(call, "path"));
  if (const std::string directory = call.engine.names().path_of(call.directory); !at_or_below(path, directory))
    return fail(Errc::access_denied, path + " is not below " + directory + "; send the request through a directory above it");
  RK_TRY_ASSIGN(Ino ino, call.engine.names().resolve(path));
  RK_TRY_ASSIGN(std::string status, call.engine.names().getxattr(ino, "user.rekeyfs.status"));
  return json{{"path", text(path)}, {"status", status}};
}

json facts_of(const Origin& origin) {
  return {{"source", origin.source},
          {"key_before", text(origin.key_before)},
          {"replicated", time_text(origin.replicated)},
          {"completed", origin.completed == 0 ? json(nullptr) : json(time_text(origin.completed))}};
}

json facts_of(const NodeInfo& info) {
  const Attributes& attributes = info.attributes;
  json keys = json::array();
  for (const KeyNeed& need : info.keys_needed) keys.push_back({{"key", text(need.key)}, {"until", need.until}});
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
          {"changed", time_text(attributes.changed)},
          {"attributes", object_of(info.ours)},
          {"user_attributes", object_of(info.others)},
          {"lineage", info.origin ? facts_of(*info.origin) : json(nullptr)},
          {"layers", array_of(info.layers)},
          {"keys_needed", std::move(keys)}};
}

Result<json> info(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  RK_TRY_ASSIGN(NodeInfo facts, call.engine.reports().info(node.ino));
  json answer = facts_of(facts);
  answer["boot"] = nullptr;
  if (node.kind == NodeKind::image) {
    RK_TRY_ASSIGN(const std::optional<BootReads> boot, call.engine.files().boot_reads(node.ino));
    if (boot) answer["boot"] = summary_of(*boot);
  }
  if (node.ino == kRootIno) {
    RK_TRY_ASSIGN(Space space, call.engine.reports().space());
    answer["store"] = text(call.engine.store_path());
    answer["read_only"] = read_only_of(call);
    answer["unknown_features"] = call.engine.reports().unknown_features();
    answer["space"] = {{"total", space.total}, {"available", space.available}, {"nodes", space.nodes}};
  }
  return answer;
}

Result<uid_t> required_user(const Call& call) {
  auto found = call.request.find("user");
  if (found == call.request.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() >= static_cast<uid_t>(-1))
    return fail(Errc::invalid, "the command needs the user id \"user\"");
  return found->get<uid_t>();
}

Result<Timestamp> required_delay(const Call& call) {
  constexpr std::uint64_t kMaxSeconds = 366u * 24 * 3600;
  auto found = call.request.find("delay");
  if (found == call.request.end() || !found->is_number_unsigned() || found->get<std::uint64_t>() > kMaxSeconds)
    return fail(Errc::invalid, "the command needs \"delay\", in seconds, at most a year");
  return static_cast<Timestamp>(found->get<std::uint64_t>()) * 1'000'000'000;
}

Result<json> key_create(const Call& call) {
  RK_TRY_ASSIGN(std::string alias, required_text(call, "alias"));
  RK_TRY_ASSIGN(KeyFacts key, call.engine.keys().create(alias, call.caller));
  return facts_of(key);
}

Result<json> key_list(const Call& call) {
  RK_TRY_ASSIGN(std::vector<KeyFacts> keys, call.engine.keys().list());
  return json{{"keys", array_of(keys)}};
}

// The key's owner and operators see all uses; other users see those of images that they can list themselves.
Result<json> key_show(const Call& call) {
  RK_TRY_ASSIGN(std::string alias, required_text(call, "alias"));
  RK_TRY_ASSIGN(KeyFacts key, call.engine.keys().find(alias));
  RK_TRY_ASSIGN(std::vector<KeyUse> uses, call.engine.keys().uses(key.id));
  const std::string directory = call.engine.names().path_of(call.directory);
  bool all = call.caller.is_operator || call.caller.uid == key.owner;
  json shown = json::array();
  std::size_t elsewhere = 0;
  for (const KeyUse& use : uses) {
    if (all || at_or_below(use.path, directory))
      shown.push_back({{"path", text(use.path)}, {"reason", use.reason}, {"until", use.until}});
    else
      ++elsewhere;
  }
  json answer = facts_of(key);
  answer["uses"] = std::move(shown);
  answer["uses_elsewhere"] = elsewhere;
  return answer;
}

// An operator acts as root, because the user that runs the daemon has access to every key anyway.
template <KeyChange::Kind kind>
Result<json> key_change(const Call& call) {
  RK_TRY_ASSIGN(std::string alias, required_text(call, "alias"));
  KeyChange change;
  change.kind = kind;
  change.force = call.request.value("force", false);
  if (kind == KeyChange::Kind::grant || kind == KeyChange::Kind::revoke) {
    RK_TRY_ASSIGN(change.user, required_user(call));
  }
  if (kind == KeyChange::Kind::schedule_deletion) {
    RK_TRY_ASSIGN(change.delay, required_delay(call));
  }
  RK_TRY_ASSIGN(KeyFacts key, call.engine.keys().change(alias, change, call.caller));
  return facts_of(key);
}

Result<json> rotate(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  RK_TRY_ASSIGN(std::string alias, required_text(call, "alias"));
  Keys& keys = call.engine.keys();
  const bool dry_run = call.request.value("dry_run", false);
  RK_TRY_ASSIGN(const RotationPlan plan, dry_run ? keys.plan_rotation(node.ino, alias, call.caller)
                                                 : keys.rotate_directory(node.ino, alias, call.caller));
  return json{{"path", text(call.engine.names().path_of(node.ino))},
              {"images", plan.images},
              {"bytes_to_transform", plan.bytes_to_transform},
              {"space_needed", plan.space_needed},
              {"space_available", plan.space_available}};
}

Result<json> profile_show(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  RK_TRY_ASSIGN(const std::optional<BootReads> boot, call.engine.files().boot_reads(node.ino));
  return json{{"path", text(call.engine.names().path_of(node.ino))}, {"profile", boot ? facts_of(*boot) : json(nullptr)}};
}

Result<json> profile_clear(const Call& call) {
  RK_TRY_ASSIGN(Attributes node, requested_node(call));
  RK_TRY(call.engine.files().clear_boot_profile(node.ino, call.caller));
  return json{{"path", text(call.engine.names().path_of(node.ino))}};
}

// Other users than operators see only their own events.
Result<json> log(const Call& call) {
  EventQuery query;
  RK_TRY_ASSIGN(query.most, number_or(call, "most", query.most));
  RK_TRY_ASSIGN(query.after, number_or(call, "after", query.after));
  if (!call.caller.is_operator) query.uid = call.caller.uid;
  RK_TRY_ASSIGN(std::vector<Event> events, call.engine.reports().events(query));
  return json{{"events", array_of(events)}};
}

Result<OpenFile*> required_file(const Call& call) {
  if (call.file == nullptr) return fail(Errc::invalid, "the command must be sent through an open image");
  return call.file;
}

Result<TargetChoice> requested_target(const Call& call) {
  TargetChoice choice;
  if (call.request.contains("key")) {
    choice.by = TargetChoice::By::key;
    RK_TRY_ASSIGN(choice.key, required_text(call, "key"));
  } else if (call.request.value("plain", false)) {
    choice.by = TargetChoice::By::plain;
  }
  choice.fast_create = call.request.value("fast_create", false);
  return choice;
}

Result<json> choose(const Call& call) {
  RK_TRY_ASSIGN(OpenFile * file, required_file(call));
  RK_TRY_ASSIGN(const TargetChoice choice, requested_target(call));
  RK_TRY(call.engine.files().choose_target(*file, choice, call.caller));
  return json::object();
}

Result<json> refusal(const Call& call) {
  RK_TRY_ASSIGN(OpenFile * file, required_file(call));
  const std::optional<Error> refused = call.engine.files().refusal_of(*file);
  return json{{"refusal", refused ? facts_of(*refused) : json(nullptr)}};
}

Result<json> plan(const Call& call) {
  RK_TRY_ASSIGN(OpenFile * file, required_file(call));
  RK_TRY_ASSIGN(const TargetChoice choice, requested_target(call));
  RK_TRY_ASSIGN(const std::uint64_t directory, number_or(call, "directory", 0));
  RK_TRY_ASSIGN(const ReplicationPlan plan, call.engine.files().plan_replication(*file, Ino{directory}, choice, call.caller));
  json answer{{"transforms", plan.transforms},
              {"key_before", text(plan.key_before)},
              {"key_after", text(plan.key_after)},
              {"format", plan.format.empty() ? json(nullptr) : json(plan.format)},
              {"size", plan.size},
              {"bytes_to_transform", plan.bytes_to_transform},
              {"space_needed", plan.space_needed},
              {"space_available", plan.space_available},
              {"refusals", array_of(plan.refusals)}};
  if (!call.request.value("estimate", false)) return answer;
  const TransformRate rate = call.engine.files().transform_rate(*file);
  answer["bytes_per_second"] = rate.bytes_per_second;
  answer["rate_from"] = rate.from == TransformRate::From::recent ? "recent" : "measured";
  return answer;
}

struct Row {
  std::string_view command;
  Result<json> (*serve)(const Call&);
};

constexpr std::array kRows{
    // clang-format off
    Row{"session", session},
    Row{"sync", sync},
    Row{"status", status},
    Row{"progress", progress},
    Row{"state", state},
    Row{"info", info},
    Row{"log", log},
    Row{"choose", choose},
    Row{"refusal", refusal},
    Row{"plan", plan},
    Row{"rotate", rotate},
    Row{"profile-show", profile_show},
    Row{"profile-clear", profile_clear},
    Row{"key-create", key_create},
    Row{"key-list", key_list},
    Row{"key-show", key_show},
    Row{"key-rotate", key_change<KeyChange::Kind::rotate>},
    Row{"key-disable", key_change<KeyChange::Kind::disable>},
    Row{"key-enable", key_change<KeyChange::Kind::enable>},
    Row{"key-delete", key_change<KeyChange::Kind::schedule_deletion>},
    Row{"key-cancel-deletion", key_change<KeyChange::Kind::cancel_deletion>},
    Row{"key-grant", key_change<KeyChange::Kind::grant>},
    Row{"key-revoke", key_change<KeyChange::Kind::revoke>},
    // clang-format on
};

Result<json> serve(const Call& call) {
  if (!call.request.is_object()) return fail(Errc::invalid, "the request is not a JSON object");
  RK_TRY_ASSIGN(std::string command, required_text(call, "command"));
  for (const Row& row : kRows)
    if (row.command == command) return row.serve(call);
  return fail(Errc::not_supported, "the daemon of the mount (rekeyfs " REKEYFS_VERSION
                                   ") does not know the command \"" +
                                       command + "\"; unmount, and mount again with the newer version");
}

json answer_of(const Error& error) {
  return {{"error", facts_of(error)}};
}

}  // namespace

std::optional<Errc> reason_named(std::string_view name) {
  for (int number = 0; number < 256; ++number) {
    auto code = static_cast<Errc>(number);
    if (name_of(code) == name) return code;
  }
  return std::nullopt;
}

json serve_command(Engine& engine, const Caller& caller, Ino directory, const json& request, OpenFile* file) noexcept {
  try {
    Result<json> answer = serve(Call{engine, caller, directory, request, file});
    return answer ? json{{"ok", std::move(*answer)}} : answer_of(answer.error());
  } catch (const std::bad_alloc&) {
    return answer_of(Error{Errc::no_memory, ""});
  } catch (const std::exception& exception) {
    return answer_of(Error{Errc::invalid, std::string("the request failed: ") + exception.what()});
  }
}

void put_name(json& request, std::string_view name) {
  if (is_utf8(name)) {
    request["name"] = name;
    return;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : name) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  request["name_hex"] = hex;
}

Result<json> read_answer(json answer) {
  if (answer.is_object() && answer.contains("ok")) return std::move(answer["ok"]);
  if (!answer.is_object() || !answer.contains("error") || !answer["error"].is_object())
    return fail(Errc::invalid,
                "the daemon sent an unknown answer; check that it has the same version as this program");
  const json& error = answer["error"];
  auto part = [&](const char* member) {
    auto found = error.find(member);
    return found != error.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  return fail(reason_named(part("code")).value_or(Errc::io), part("message"));
}

}  // namespace rekeyfs::fs
