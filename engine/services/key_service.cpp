#include "engine/services/key_service.h"

namespace rekeyfs::services {
namespace {

KeyFacts facts_of(const kms::KeyInfo& info) {
  KeyFacts facts;
  facts.id = to_hex(info.id);
  facts.alias = info.alias;
  facts.state = kms::name_of(info.state);
  facts.version = info.version;
  facts.oldest = info.oldest;
  facts.owner = info.owner;
  facts.created = info.created;
  facts.deletion = info.deletion;
  facts.grantees = info.grantees;
  facts.declassifiers = info.declassifiers;
  return facts;
}

}  // namespace

// A pending deletion is shown as it will take place, which is later than on record if the store was not mounted.
KeyFacts KeyService::shown(const kms::KeyInfo& key) const {
  KeyFacts facts = facts_of(key);
  if (key.state == kms::KeyState::pending_deletion) facts.deletion = life_.deletions().earliest(key).value_or(key.deletion);
  return facts;
}

Result<KeyFacts> KeyService::create(std::string_view alias, const Caller& caller) {
  RK_TRY(store_.may_add());
  return recorded(life_.create(alias, caller), alias, caller).map(facts_of);
}

Result<std::vector<KeyFacts>> KeyService::list() {
  RK_TRY_ASSIGN(const std::vector<kms::KeyInfo> keys, store_.keys().list());
  std::vector<KeyFacts> facts;
  for (const kms::KeyInfo& info : keys) facts.push_back(shown(info));
  return facts;
}

Result<KeyFacts> KeyService::find(std::string_view alias_or_id) {
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  return shown(key);
}

Result<KeyFacts> KeyService::change(std::string_view alias_or_id, const KeyChange& change, const Caller& caller) {
  if (!change.takes_away()) RK_TRY(store_.may_change());  // an order to take a key away always takes effect
  RK_TRY_ASSIGN(keys::KeyLife::Changed changed, recorded(life_.change(alias_or_id, change, caller), alias_or_id, caller));
  KeyFacts facts = shown(changed.key);
  facts.warning = std::move(changed.warning);
  return facts;
}

void KeyService::record_refusal(std::string_view alias_or_id, const Caller& caller, const Error& reason) {
  Event order;
  if (const auto key = store_.keys().find(alias_or_id)) order.key = audit::key_named(store_.keys(), key->id);
  refusals_.record_order(std::move(order), caller, reason);
}

Result<std::vector<KeyUse>> KeyService::uses(std::string_view alias_or_id) {
  RK_TRY_ASSIGN(const kms::KeyInfo key, store_.keys().find(alias_or_id));
  return uses_.of(key.id);
}

Result<RotationPlan> KeyService::rotate_directory(Ino directory, std::string_view alias_or_id, const Caller& caller) {
  RK_TRY(store_.may_add());
  return recorded(rotator_.rotate(directory, alias_or_id, caller), alias_or_id, caller);
}

Result<RotationPlan> KeyService::plan_rotation(Ino directory, std::string_view alias_or_id, const Caller& caller) {
  return rotator_.plan(directory, alias_or_id, caller);
}

}  // namespace rekeyfs::services
