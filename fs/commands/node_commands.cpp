// Commands on a node: status, progress, state, info, rotate, profile-show, profile-clear.
#include <algorithm>

#include "fs/commands/commands.h"
#include "fs/commands/facts.h"
#include "fs/commands/replication_page.h"

namespace rekeyfs::fs {

using nlohmann::json;

namespace {

// Where the copy came from is for the eyes of whoever copied it.
std::string source_of(const Call& call, const Replication& replication) {
  if (call.caller().is_operator) return replication.source;
  const auto target = call.engine.names().getattr(replication.ino);
  if (!target || target->uid != call.caller().uid) return "";
  return call.view.path_below(replication.source).value_or("");
}

Result<ReplicationPage> replications_of(const Call& call, const Attributes& node) {
  RK_TRY_ASSIGN(const std::uint64_t after, number_or(call, "after", 0));
  RK_TRY_ASSIGN(std::vector<Replication> replications, call.engine.reports().replications(node.ino));
  std::erase_if(replications, [&](const Replication& one) {
    const auto target = call.engine.names().getattr(one.ino);
    return !target || !call.view.lists(one.ino) || (one.ino != node.ino && !call.view.may_read(*target));
  });
  ReplicationPage page = page_after(std::move(replications), Ino{after});
  for (Replication& one : page.replications) {
    one.source = source_of(call, one);
    one.path = call.view.path_of(one.ino);
  }
  return page;
}

Result<json> progress_of(const Call& call, const Attributes& node) {
  const Status background = call.engine.reports().background();
  RK_TRY_ASSIGN(const ReplicationPage page, replications_of(call, node));
  json answer{{"kind", kind_text(node.kind)},
              {"replications", array_of(page.replications)},
              {"next", page.next ? json(page.next->value()) : json(nullptr)},
              {"stopped", background ? json(nullptr) : text(describe(background.error()))}};
  if (node.kind == NodeKind::image) {
    RK_TRY_ASSIGN(std::string status, call.engine.names().getxattr(node.ino, "user.rekeyfs.status"));
    answer["status"] = std::move(status);
  }
  return answer;
}

// Null for whoever may not read the directory, and if it has no quota of its own.
Result<json> quota_of(const Call& call, const Attributes& node) {
  if (node.kind != NodeKind::directory || !readable_node(call)) return json(nullptr);
  RK_TRY_ASSIGN(const std::optional<QuotaState> quota, call.engine.reports().quota(node.ino));
  return quota ? facts_of(*quota) : json(nullptr);
}

// Other users than operators see only what was refused to themselves.
json refusals_below(const Call& call, const Attributes& node) {
  const std::string path = call.engine.names().path_of(node.ino);
  std::vector<Refusal> refusals = call.engine.reports().refusals();
  std::erase_if(refusals, [&](const Refusal& refusal) {
    const bool may_see = call.caller().is_operator || call.caller().uid == refusal.uid;
    return !may_see || !path_from(path, refusal.path);
  });
  for (Refusal& refusal : refusals) {
    refusal.path = call.view.path_below(refusal.path).value_or("");
    refusal.source = call.view.path_below(refusal.source).value_or("");
  }
  return array_of(refusals);
}

}  // namespace

// Whoever may not read an image may not know its state, either.
Result<json> progress(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  if (node.kind == NodeKind::image) RK_TRY(check_reader(call, node));
  return progress_of(call, node);
}

Result<json> status(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  if (node.kind == NodeKind::image) RK_TRY(check_reader(call, node));
  RK_TRY_ASSIGN(json answer, progress_of(call, node));
  answer["path"] = text(call.view.path_of(node.ino));
  answer["refusals"] = refusals_below(call, node);
  answer["read_only"] = read_only_of(call);
  RK_TRY_ASSIGN(answer["quota"], quota_of(call, node));
  return answer;
}

Result<json> state(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, readable_node(call));
  RK_TRY_ASSIGN(std::string status, call.engine.names().getxattr(node.ino, "user.rekeyfs.status"));
  return json{{"path", text(call.view.path_of(node.ino))}, {"status", std::move(status)}};
}

Result<json> info(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  RK_TRY_ASSIGN(NodeInfo facts, call.engine.reports().info(node.ino));
  facts.path = call.view.path_of(node.ino);
  json answer = stat_facts_of(facts);
  const bool reads = check_reader(call, node).has_value();
  const json content = content_facts_of(facts);
  for (const auto& [member, value] : content.items()) answer[member] = reads ? value : json(nullptr);
  RK_TRY_ASSIGN(answer["quota"], quota_of(call, node));
  answer["boot"] = nullptr;
  if (reads && node.kind == NodeKind::image) {
    RK_TRY_ASSIGN(const std::optional<BootReads> boot, call.engine.files().boot_reads(node.ino));
    if (boot) answer["boot"] = summary_of(*boot);
  }
  if (node.ino == kRootIno) {
    RK_TRY_ASSIGN(const Space space, call.engine.reports().space());
    answer["store"] = call.caller().is_operator ? text(call.engine.store_path()) : json(nullptr);
    answer["read_only"] = read_only_of(call);
    answer["unknown_features"] = call.engine.reports().unknown_features();
    answer["space"] = {{"total", space.total}, {"available", space.available}, {"nodes", space.nodes}};
  }
  return answer;
}

Result<json> rotate(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  RK_TRY_ASSIGN(const std::string alias, required_text(call, "alias"));
  Keys& keys = call.engine.keys();
  const bool dry_run = call.request.value("dry_run", false);
  RK_TRY_ASSIGN(const RotationPlan plan, dry_run ? keys.plan_rotation(node.ino, alias, call.caller())
                                                 : keys.rotate_directory(node.ino, alias, call.caller()));
  json skipped = json::array();
  for (const RotationPlan::Skipped& one : plan.skipped)
    skipped.push_back({{"path", text(call.view.path_below(one.path).value_or("?"))}, {"why", text(one.why)}});
  return json{{"path", text(call.view.path_of(node.ino))},
              {"images", plan.images},
              {"bytes_to_transform", plan.bytes_to_transform},
              {"space_needed", plan.space_needed},
              {"space_available", plan.space_available},
              {"skipped", std::move(skipped)},
              {"skipped_count", plan.skipped_count}};
}

Result<json> profile_show(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, readable_node(call));
  RK_TRY_ASSIGN(const std::optional<BootReads> boot, call.engine.files().boot_reads(node.ino));
  return json{{"path", text(call.view.path_of(node.ino))}, {"profile", boot ? facts_of(*boot) : json(nullptr)}};
}

Result<json> profile_clear(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  RK_TRY(call.engine.files().clear_boot_profile(node.ino, call.caller()));
  return json{{"path", text(call.view.path_of(node.ino))}};
}

}  // namespace rekeyfs::fs
