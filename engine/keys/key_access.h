// Who may use which master key. The decision is the engine's, whatever key service has the key. Thread-safe.
#pragma once

#include <optional>

#include "engine/kms/key_directory.h"
#include "engine/types/caller.h"

namespace rekeyfs::keys {

// Whether `caller` may have content sealed or opened with the key: root, its owner, and whoever has a grant.
// Errc::access_denied otherwise; Errc::no_key; Errc::key_revoked while it is not enabled. No key: anybody.
Status may_use(const kms::KeyDirectory& keys, const std::optional<kms::KeyId>& key, const Caller& caller);

// Whether `caller` may change the key itself: root and its owner. Errc::not_permitted otherwise.
Status may_manage(const kms::KeyInfo& key, const Caller& caller);

}  // namespace rekeyfs::keys
