#include "engine/keys/key_access.h"

#include <algorithm>

namespace rekeyfs::keys {
namespace {

// `given`: the sorted users who were granted the right.
bool has_right(const kms::KeyInfo& key, const std::vector<uid_t>& given, const Caller& caller) {
  return caller.is_operator || caller.uid == key.owner || std::binary_search(given.begin(), given.end(), caller.uid);
}

Status check_grant(const kms::KeyInfo& key, const Caller& caller) {
  if (has_right(key, key.grantees, caller)) return {};
  return fail(Errc::access_denied, "user " + std::to_string(caller.uid) + " has no grant for key \"" + key.alias +
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

Status may_declassify(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller) {
  if (!key) return {};
  RK_TRY_ASSIGN(const kms::KeyInfo info, keys.find(*key));
  if (has_right(info, info.declassifiers, caller)) return {};
  return fail(Errc::access_denied, "user " + std::to_string(caller.uid) + " may not declassify content of key \"" + info.alias +
                                       "\", that is, copy it to where it is not encrypted: the owner of the key or an operator can "
                                       "grant that with `rekeyfs key grant " + info.alias + " USER PATH --right declassify`");
}

Status may_manage(const kms::KeyInfo& key, const Caller& caller) {
  if (caller.is_operator || caller.uid == key.owner) return {};
  return fail(Errc::not_permitted, "only the owner or an operator may change key \"" + key.alias + "\"");
}

}  // namespace rekeyfs::keys
