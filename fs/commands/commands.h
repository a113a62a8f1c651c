// The commands of fs/control.h, each a function that returns the "ok" part of the answer.
#pragma once

#include "engine/types/key_facts.h"
#include "fs/commands/call.h"

namespace rekeyfs::fs {

// On the mount: store_commands.cpp
Result<nlohmann::json> session(const Call& call);
Result<nlohmann::json> sync(const Call& call);
Result<nlohmann::json> log(const Call& call);
Result<nlohmann::json> log_verify(const Call& call);

// On a node: node_commands.cpp
Result<nlohmann::json> status(const Call& call);
Result<nlohmann::json> progress(const Call& call);
Result<nlohmann::json> state(const Call& call);
Result<nlohmann::json> info(const Call& call);
Result<nlohmann::json> rotate(const Call& call);
Result<nlohmann::json> profile_show(const Call& call);
Result<nlohmann::json> profile_clear(const Call& call);

// On keys: key_commands.cpp
Result<nlohmann::json> key_create(const Call& call);
Result<nlohmann::json> key_list(const Call& call);
Result<nlohmann::json> key_show(const Call& call);
Result<nlohmann::json> key_change(const Call& call, KeyChange::Kind kind);
template <KeyChange::Kind kind>
Result<nlohmann::json> key_change(const Call& call) {
  return key_change(call, kind);
}

// On an open handle: handle_commands.cpp
Result<nlohmann::json> token(const Call& call);
Result<nlohmann::json> choose(const Call& call);
Result<nlohmann::json> refusal(const Call& call);
Result<nlohmann::json> plan(const Call& call);

// Why the store takes no changes since a failed sync, as far as the sender may know it; null if it does.
nlohmann::json read_only_of(const Call& call);

}  // namespace rekeyfs::fs
