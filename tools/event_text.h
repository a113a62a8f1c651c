// EventText: an event of the audit log, in the JSON of fs/control.h, as words for people. Pure functions.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace rekeyfs::tools {

std::string who_text(const nlohmann::json& event);   // the user's name
std::string what_text(const nlohmann::json& event);  // what the user did: "cloned /a to /b (tenant-key)"

}  // namespace rekeyfs::tools
