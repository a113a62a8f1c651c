// Call: one command under way: who sent it, its members, and what its sender may see. For the commands in this folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "fs/commands/view.h"
#include "fs/control.h"

namespace rekeyfs::fs {

struct Call {
  Engine& engine;
  const Requester& requester;
  const nlohmann::json& request;
  View& view;

  const Caller& caller() const { return requester.caller; }
};

// Members of the request. Errc::invalid, with the name of the member, if it is missing or of another type.
Result<std::string> required_text(const Call& call, const char* member);
Result<uid_t> required_user(const Call& call);
Result<Timestamp> required_delay(const Call& call);  // nanoseconds
Result<std::uint64_t> number_or(const Call& call, const char* member, std::uint64_t otherwise);

// The node that the members "path" or "path_hex" name, as View::reach() finds it.
Result<Attributes> requested_node(const Call& call);
// Whether the sender may know of the node what only its readers may. Errc::access_denied.
Status check_reader(const Call& call, const Attributes& node);
// The node that is named, for commands that only its readers may give.
Result<Attributes> readable_node(const Call& call);

}  // namespace rekeyfs::fs
