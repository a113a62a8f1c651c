// KeyAccess: which users may use or change a master key. The engine decides this, independent of the key service.
// Thread-safe.
#pragma once

#include <optional>

#include "engine/kms/key_directory.h"
#include "engine/types/caller.h"

namespace rekeyfs::keys {

// Whether `caller` may encrypt and decrypt content with the key: operators, the key's owner and users with a grant.
// Otherwise Errc::access_denied. Errc::no_key; Errc::key_revoked unless the key is enabled. Without a key: every user.
Status may_use(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller);

// Whether `caller` may take the key from a directory or an image: as may_use(), but in any state of the key, and also if
// it was deleted. Errc::access_denied.
Status may_release(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller);

// Whether `caller` may copy content that the key encrypts to where it is plain: operators, the key's owner and users
// with the right to declassify, which does not include the right to use the key. Otherwise Errc::access_denied.
// Errc::no_key. Without a key: every user.
Status may_declassify(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller);

// Whether `caller` may change the key: operators and its owner. Errc::not_permitted otherwise.
Status may_manage(const kms::KeyInfo& key, const Caller& caller);

}  // namespace rekeyfs::keys
