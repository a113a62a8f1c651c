// Commands on the mount: session, sync, log, log-verify.
#include <unistd.h>

#include "fs/commands/commands.h"
#include "fs/commands/facts.h"

namespace rekeyfs::fs {

using nlohmann::json;

namespace {

bool is_of_key(const Event& event) { return event.path.empty(); }

// As the sender knows the event's paths; false if it is about something outside of the directory. Keys belong to the
// mount's root.
bool show(const Call& call, Event& event) {
  if (is_of_key(event)) return call.requester.through == kRootIno;
  const auto path = call.view.path_below(event.path);
  if (!path) return false;
  event.path = *path;
  event.source = call.view.path_below(event.source).value_or("");
  return true;
}

}  // namespace

Result<json> session(const Call& call) {
  json answer{{"pid", nullptr}, {"store", nullptr}, {"version", REKEYFS_VERSION}};
  if (!call.caller().is_operator) return answer;
  answer["pid"] = getpid();
  answer["store"] = text(call.engine.store_path());
  return answer;
}

Result<json> sync(const Call& call) {
  RK_TRY(call.engine.sync_all());
  return json::object();
}

json read_only_of(const Call& call) {
  const Status health = call.engine.reports().health();
  if (health) return nullptr;
  // The reason of the failure may name a path of the host.
  if (!call.caller().is_operator) return "the store is read-only since a failed sync";
  return text(describe(health.error()));
}

// Other users than operators see only their own events.
Result<json> log(const Call& call) {
  constexpr std::size_t kPage = 256u << 10;  // in JSON at most six times as much, if every character has to be escaped
  EventQuery query;
  query.most_bytes = kPage;
  RK_TRY_ASSIGN(query.most, number_or(call, "most", query.most));
  RK_TRY_ASSIGN(query.after, number_or(call, "after", query.after));
  query.oldest = call.request.value("oldest", false);
  if (!call.caller().is_operator) query.uid = call.caller().uid;
  RK_TRY_ASSIGN(std::vector<Event> events, call.engine.reports().events(query));
  const json last = events.empty() ? json(nullptr) : json(events.back().number);
  if (!call.caller().is_operator) std::erase_if(events, [&](Event& event) { return !show(call, event); });
  return json{{"events", array_of(events)}, {"all", call.caller().is_operator}, {"last", last}};
}

Result<json> log_verify(const Call& call) {
  RK_TRY_ASSIGN(const LogVerification log, call.engine.reports().verify_log());
  return json{{"first", log.first}, {"last", log.last}, {"events", log.events}, {"unverified", log.unverified}, {"problems", log.problems}};
}

}  // namespace rekeyfs::fs
