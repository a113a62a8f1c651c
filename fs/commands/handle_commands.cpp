// Commands on an open handle: token, choose, refusal, plan.
#include "fs/commands/commands.h"
#include "fs/commands/facts.h"

namespace rekeyfs::fs {

using nlohmann::json;

namespace {

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

// The directory that a copy goes to. Its number would be easy to guess; the token of an open descriptor is not.
Result<Ino> requested_directory(const Call& call) {
  RK_TRY_ASSIGN(const std::string token, required_text(call, "directory"));
  const std::optional<Ino> directory = call.requester.directory_with(token);
  if (!directory) return fail(Errc::invalid, "\"directory\" must be the token of a directory that is open");
  return *directory;
}

}  // namespace

Result<json> token(const Call& call) {
  RK_TRY_ASSIGN(const Attributes node, requested_node(call));
  if (node.kind != NodeKind::directory) return fail(Errc::not_directory);
  return json{{"token", call.requester.draw_token(node.ino)}};
}

Result<json> choose(const Call& call) {
  RK_TRY_ASSIGN(const TargetChoice choice, requested_target(call));
  RK_TRY(call.engine.files().choose_target(*call.requester.file, choice, call.caller()));
  return json::object();
}

Result<json> refusal(const Call& call) {
  const std::optional<Error> refused = call.engine.files().refusal_of(*call.requester.file);
  return json{{"refusal", refused ? facts_of(*refused) : json(nullptr)}};
}

Result<json> plan(const Call& call) {
  OpenFile& source = *call.requester.file;
  RK_TRY_ASSIGN(const TargetChoice choice, requested_target(call));
  RK_TRY_ASSIGN(const Ino directory, requested_directory(call));
  RK_TRY_ASSIGN(const ReplicationPlan plan, call.engine.files().plan_replication(source, directory, choice, call.caller()));
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
  const TransformRate rate = call.engine.files().transform_rate(source);
  answer["bytes_per_second"] = rate.bytes_per_second;
  answer["rate_from"] = rate.from == TransformRate::From::recent ? "recent" : "measured";
  return answer;
}

}  // namespace rekeyfs::fs
