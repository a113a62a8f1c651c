#include "engine/keys/key_access.h"

#include <algorithm>

namespace rekeyfs::keys {

namespace {

Status check_grant(const kms::KeyInfo& info, const Caller& caller) {
  const bool may = caller.is_operator || caller.uid == info.owner ||
                   std::binary_search(info.grantees.begin(), info.grantees.end(), caller.uid);
  if (may) return {};
  return fail(Errc::access_denied, "user " + std::to_string(caller.uid) + " has no grant for key \"" + info.alias +
                                       "\": the owner of the key or an operator can grant it with `rekeyfs key grant`");
}

}  // namespace

Status may_use(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller) {
  if (!key) return {};
  RK_TRY_ASSIGN(const kms::KeyInfo info, keys.find(*key));
  RK_TRY(kms::check_enabled(info));
  return check_grant(info, caller);
}

Status may_release(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller) {
  if (!key) return {};
  const auto info = keys.find(*key);
  if (!info && info.error().code == Errc::no_key) return {};
  return info ? check_grant(*info, caller) : fail(info.error());
}

Status may_declassify(const kms::KeyDirectory& keys, const kms::KeyId& key, const Caller& caller) {
  RK_TRY_ASSIGN(const kms::KeyInfo info, keys.find(key));
  if (caller.is_operator || caller.uid == info.owner) return {};
  return fail(Errc::access_denied, "user " + std::to_string(caller.uid) + " may not declassify content of key \"" + info.alias +
                                       "\", that is, copy it to where it is not encrypted: the owner of the key and operators may");
}

Status may_manage(const kms::KeyInfo& key, const Caller& caller) {
  if (caller.is_operator || caller.uid == key.owner) return {};
  return fail(Errc::not_permitted, "only the owner or an operator may change key \"" + key.alias + "\"");
}

}  // namespace rekeyfs::keys
