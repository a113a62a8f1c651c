// Commands on keys.
#include <algorithm>

#include "fs/commands/commands.h"
#include "fs/commands/facts.h"

namespace rekeyfs::fs {

using nlohmann::json;

namespace {

bool is_among(const std::vector<uid_t>& users, uid_t user) { return std::find(users.begin(), users.end(), user) != users.end(); }

bool governs(const Call& call, const KeyFacts& key) { return call.caller().is_operator || call.caller().uid == key.owner; }

bool may_see(const Call& call, const KeyFacts& key) {
  return governs(call, key) || is_among(key.grantees, call.caller().uid) || is_among(key.declassifiers, call.caller().uid);
}

// Whoever only has a grant does not see who else has.
json facts_for(const Call& call, KeyFacts key) {
  if (governs(call, key)) return facts_of(key);
  for (auto* users : {&key.grantees, &key.declassifiers}) std::erase_if(*users, [&](uid_t user) { return user != call.caller().uid; });
  return facts_of(key);
}

// Whoever is no operator is told the same of a key that he may not see and of one that does not exist.
Result<KeyFacts> requested_key(const Call& call) {
  RK_TRY_ASSIGN(const std::string alias, required_text(call, "alias"));
  auto key = call.engine.keys().find(alias);
  if (call.caller().is_operator || (key && may_see(call, *key))) return key;
  return fail(Errc::access_denied, "there is no key \"" + alias + "\" that you own or have a grant for: `rekeyfs key list` shows yours");
}

// The right that a grant is about.
Result<bool> names_declassify(const Call& call) {
  if (!call.request.contains("right")) return false;
  RK_TRY_ASSIGN(const std::string right, required_text(call, "right"));
  if (right != "declassify") return fail(Errc::invalid, "\"right\" must be \"declassify\", or absent");
  return true;
}

}  // namespace

Result<json> key_create(const Call& call) {
  RK_TRY_ASSIGN(const std::string alias, required_text(call, "alias"));
  RK_TRY_ASSIGN(const KeyFacts key, call.engine.keys().create(alias, call.caller()));
  return facts_of(key);
}

Result<json> key_list(const Call& call) {
  RK_TRY_ASSIGN(const std::vector<KeyFacts> keys, call.engine.keys().list());
  json shown = json::array();
  for (const KeyFacts& key : keys)
    if (may_see(call, key)) shown.push_back(facts_for(call, key));
  return json{{"keys", std::move(shown)}};
}

// Each sender sees the uses by images that he could list himself. How many more there are is for those who have to know
// it before they disable the key.
Result<json> key_show(const Call& call) {
  RK_TRY_ASSIGN(const KeyFacts key, requested_key(call));
  RK_TRY_ASSIGN(const std::vector<KeyUse> uses, call.engine.keys().uses(key.id));
  json shown = json::array();
  std::size_t elsewhere = 0;
  for (const KeyUse& use : uses) {
    if (call.view.lists(use.image)) shown.push_back({{"path", text(use.path)}, {"reason", use.reason}, {"until", use.until}});
    else ++elsewhere;
  }
  json answer = facts_for(call, key);
  answer["uses"] = std::move(shown);
  answer["uses_elsewhere"] = governs(call, key) ? json(elsewhere) : json(nullptr);
  return answer;
}

Result<json> key_change(const Call& call, KeyChange::Kind kind) {
  KeyChange change;
  change.kind = kind;
  change.force = call.request.value("force", false);
  if (kind == KeyChange::Kind::grant || kind == KeyChange::Kind::revoke) {
    RK_TRY_ASSIGN(change.user, required_user(call));
    RK_TRY_ASSIGN(change.declassify, names_declassify(call));
  }
  if (kind == KeyChange::Kind::schedule_deletion) {
    RK_TRY_ASSIGN(change.delay, required_delay(call));
  }
  const auto key = requested_key(call);
  if (!key) {
    RK_TRY_ASSIGN(const std::string alias, required_text(call, "alias"));
    call.engine.keys().record_refusal(alias, call.caller(), key.error());
    return fail(key.error());
  }
  RK_TRY_ASSIGN(const KeyFacts changed, call.engine.keys().change(key->id, change, call.caller()));
  return facts_for(call, changed);
}

}  // namespace rekeyfs::fs
